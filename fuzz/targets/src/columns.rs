//! Columns of chunks.

use std::sync::Arc;

use model::Histogram;

/// The first byte says how many rows, the rest is a column.
pub(crate) fn chunk_decode(data: &[u8]) {
    let Some((count, column)) = data.split_first() else { return };
    let count = usize::from(*count) * 5;
    let (mut values, mut stamps, mut histograms) = (Vec::new(), Vec::new(), Vec::<Arc<Histogram>>::new());
    if chunk::decode_values(column, count, &mut values).is_ok() {
        assert_eq!(values.len(), count);
    }
    if chunk::decode_stamps(column, count, &mut stamps).is_ok() {
        assert_eq!(stamps.len(), count);
    }
    if chunk::decode_histograms(column, count, &mut histograms).is_ok() {
        assert_eq!(histograms.len(), count);
        let mut again = Vec::new();
        chunk::Encoder::new().histograms(&histograms, &mut again);
        let mut back = Vec::new();
        chunk::decode_histograms(&again, count, &mut back).expect("what was encoded decodes");
        assert_eq!(format!("{back:?}"), format!("{histograms:?}"));
    }
    let _ = chunk::read_layout_of(column, 1_000);
}

/// Any floats and integers come back. The first byte says how they are made of the rest.
pub(crate) fn chunk_round_trip(data: &[u8]) {
    let Some((how, rest)) = data.split_first() else { return };
    let whole = |chunk: &[u8]| i64::from_le_bytes(chunk.try_into().expect("8 bytes"));
    let mut integers: Vec<i64> = match how % 3 {
        0 => rest.chunks_exact(8).map(whole).collect(),
        1 => rest.iter().map(|byte| i64::from(*byte)).collect(),
        // As stamps and counters are: distances.
        _ => rest
            .iter()
            .scan(1_700_000_000_000, |at, byte| {
                *at += i64::from(*byte as i8) * 250;
                Some(*at)
            })
            .collect(),
    };
    integers.truncate(4_000);
    let floats: Vec<f64> = match how / 3 % 3 {
        0 => integers.iter().map(|n| f64::from_bits(n.cast_unsigned())).collect(),
        1 => integers.iter().map(|n| *n as f64).collect(),
        _ => integers.iter().map(|n| *n as f64 / 1000.0).collect(),
    };
    let mut encoder = chunk::Encoder::new();
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    encoder.values(&floats, &mut bytes);
    chunk::decode_values(&bytes, floats.len(), &mut back).expect("what was encoded decodes");
    let bits = |all: &[f64]| all.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&back), bits(&floats));
    let (mut bytes, mut back) = (Vec::new(), Vec::new());
    encoder.stamps(&integers, &mut bytes);
    chunk::decode_stamps(&bytes, integers.len(), &mut back).expect("what was encoded decodes");
    assert_eq!(back, integers);
}
