//! Which rows of a column a series has ⇄ bytes: the runs that it misses, or one bit a row, whichever is shorter.
//!
//! ```text
//! number of missing runs varint (at least 1) | for each: rows present before it varint, its length - 1 varint
//! 0 | bitmap, one bit a row, lowest bit first
//! ```

use super::PageError;
use super::format::{Reader, push_varint};

/// Appends which of the stamps of `column` are in `subset` (both ascending) and returns true, or returns false when
/// `subset` is not contained in `column` or has less than half of it.
pub(super) fn write(column: &[i64], subset: &[i64], out: &mut Vec<u8>) -> bool {
    if subset.is_empty() || subset.len() > column.len() || subset.len() * 2 < column.len() {
        return false;
    }
    let start = out.len();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let (mut taken, mut present) = (0, 0);
    let mut missing = 0;
    for stamp in column {
        if subset.get(taken) == Some(stamp) {
            if missing > 0 {
                runs.push((present, missing));
                (present, missing) = (0, 0);
            }
            taken += 1;
            present += 1;
        } else {
            missing += 1;
        }
    }
    if taken != subset.len() {
        return false;
    }
    if missing > 0 {
        runs.push((present, missing));
    }
    push_varint(out, runs.len() as u64);
    for (present, missing) in &runs {
        push_varint(out, *present as u64);
        push_varint(out, (*missing - 1) as u64);
    }
    let bitmap_len = column.len().div_ceil(8);
    if runs.is_empty() || out.len() - start > 1 + bitmap_len {
        out.truncate(start);
        out.push(0);
        let bitmap = out.len();
        out.resize(bitmap + bitmap_len, 0);
        let mut taken = 0;
        for (row, stamp) in column.iter().enumerate() {
            if subset.get(taken) == Some(stamp) {
                out[bitmap + row / 8] |= 1 << (row % 8);
                taken += 1;
            }
        }
    }
    true
}

/// Reads what [`write()`] wrote for a column of these stamps and appends the `rows` that are present to `out`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    column: &[i64],
    rows: usize,
    out: &mut Vec<i64>,
) -> Result<(), PageError> {
    let start = out.len();
    let runs = reader.varlen(column.len())?;
    if runs == 0 {
        let bitmap = reader.take(column.len().div_ceil(8))?;
        out.extend(
            (0..column.len()).filter(|row| bitmap[row / 8] >> (row % 8) & 1 != 0).map(|row| column[row]),
        );
    } else {
        let mut at = 0;
        for _ in 0..runs {
            let present = reader.varlen(column.len() - at)?;
            out.extend_from_slice(&column[at..at + present]);
            at += present;
            at += reader.varlen(column.len())? + 1;
            if at > column.len() {
                return Err(PageError::Format("presence"));
            }
        }
        out.extend_from_slice(&column[at..]);
    }
    if out.len() - start == rows { Ok(()) } else { Err(PageError::Format("number of rows")) }
}

/// Passes over what [`write()`] wrote for a column of `rows` stamps.
pub(super) fn skip(reader: &mut Reader<'_>, rows: usize) -> Result<(), PageError> {
    let runs = reader.varlen(rows)?;
    if runs == 0 {
        reader.take(rows.div_ceil(8))?;
    }
    for _ in 0..2 * runs {
        reader.varint()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(column: &[i64], subset: &[i64]) -> Option<usize> {
        let mut bytes = Vec::new();
        if !write(column, subset, &mut bytes) {
            return None;
        }
        let mut out = Vec::new();
        let mut reader = Reader { bytes: &bytes, at: 0 };
        read(&mut reader, column, subset.len(), &mut out).unwrap();
        assert_eq!(out, subset);
        assert_eq!(reader.at, bytes.len());
        reader.at = 0;
        skip(&mut reader, column.len()).unwrap();
        assert_eq!(reader.at, bytes.len());
        Some(bytes.len())
    }

    #[test]
    fn runs_are_short_and_strangers_are_refused() {
        let column: Vec<i64> = (0..480).map(|i| i * 15).collect();
        assert_eq!(check(&column, &column[100..]), Some(3));
        assert_eq!(check(&column, &column[..300]), Some(5));
        assert_eq!(check(&column, &column[300..]), None, "less than half");
        assert_eq!(check(&column[..4], &[0, 16, 30]), None, "not a subset");
        let odd: Vec<i64> = column.iter().copied().step_by(2).collect();
        assert_eq!(check(&column, &odd), Some(61));
    }

    proptest! {
        #[test]
        fn any_subset_comes_back(keep in prop::collection::vec(prop::bool::weighted(0.8), 1..300)) {
            let column: Vec<i64> = (0..).take(keep.len()).collect();
            let subset: Vec<i64> = column.iter().zip(&keep).filter(|(_, k)| **k).map(|(s, _)| *s).collect();
            let written = check(&column, &subset).is_some();
            prop_assert_eq!(written, !subset.is_empty() && subset.len() * 2 >= column.len());
        }

        #[test]
        fn garbage_is_an_error_or_rows(bytes in prop::collection::vec(any::<u8>(), 0..40), rows in 0usize..100) {
            let column: Vec<i64> = (0..100).collect();
            let mut out = Vec::new();
            if read(&mut Reader { bytes: &bytes, at: 0 }, &column, rows, &mut out).is_ok() {
                prop_assert_eq!(out.len(), rows);
            }
        }
    }
}
