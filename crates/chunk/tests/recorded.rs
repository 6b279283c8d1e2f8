//! Recorded values of real exporters come back bit for bit and take few bytes. Skipped, with a line that says so,
//! unless `ISOBAR_RECORDED_DIR` names a folder of `*.f64` files: little endian, u64 rows, u64 columns, rows × f64
//! scrape times, then rows × columns f64, NaN where a series was absent.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use chunk::{Encoder, decode_values};

fn words(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).expect("the folder is readable");
    bytes.as_chunks().0.iter().map(|w| u64::from_le_bytes(*w)).collect()
}

#[test]
fn recorded_values_come_back_and_are_small() {
    let Some(dir) = std::env::var_os("ISOBAR_RECORDED_DIR") else {
        println!("skipped: ISOBAR_RECORDED_DIR is not set");
        return;
    };
    let mut encoder = Encoder::new();
    let (mut bytes, mut out) = (Vec::new(), Vec::new());
    for rows_of_block in [32, 120, 480] {
        let (mut samples, mut size, mut by_tag) = (0usize, 0usize, [(0usize, 0usize); 16]);
        let files = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        for path in files.filter(|path| path.extension() == Some(OsStr::new("f64"))) {
            let words = words(&path);
            let (rows, columns) = (words[0] as usize, words[1] as usize);
            let cells = &words[2 + rows..];
            assert_eq!(cells.len(), rows * columns, "{}", path.display());
            for column in 0..columns {
                let values: Vec<f64> = (0..rows)
                    .map(|row| f64::from_bits(cells[row * columns + column]))
                    .filter(|v| !v.is_nan())
                    .collect();
                for block in values.chunks(rows_of_block) {
                    bytes.clear();
                    out.clear();
                    let tag = encoder.values(block, &mut bytes) as usize;
                    decode_values(&bytes, block.len(), &mut out).unwrap();
                    assert!(block.iter().zip(&out).all(|(a, b)| a.to_bits() == b.to_bits()));
                    samples += block.len();
                    size += bytes.len();
                    by_tag[tag].0 += block.len();
                    by_tag[tag].1 += bytes.len();
                }
            }
        }
        assert!(samples > 0, "no *.f64 file in ISOBAR_RECORDED_DIR");
        let per_sample = size as f64 / samples as f64;
        println!(
            "blocks of {rows_of_block}: {samples} samples, {per_sample:.4} bytes a sample, by tag {by_tag:?}"
        );
        let limit = if rows_of_block >= 480 { 0.20 } else { 0.30 };
        assert!(per_sample < limit, "{per_sample} bytes a sample in blocks of {rows_of_block}");
    }
}
