//! Snappy's block format, as remote write and remote read use it. The frame format is refused.

use crate::DecodeError;

/// First bytes of a stream in snappy's frame format.
const FRAME_HEADER: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// No element of the block format makes more than 64 bytes out of 3.
const MAX_EXPANSION: usize = 22;

/// The bytes that block `body` was made from. The length that the block declares is checked against `limit` (bytes,
/// 0 = none), and against what `body` can expand to at most, before anything is allocated.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    if body.starts_with(FRAME_HEADER) {
        return Err(DecodeError::Snappy("body is in the frame format, expected the block format".into()));
    }
    let length = snap::raw::decompress_len(body).map_err(describe)?;
    crate::check_limit("decompressed body in bytes", length, limit)?;
    if length > body.len().saturating_mul(MAX_EXPANSION) {
        return Err(DecodeError::Snappy(format!(
            "block of {} bytes declares {length} bytes, more than it can hold",
            body.len()
        )));
    }
    let mut out = vec![0; length];
    let n = snap::raw::Decoder::new().decompress(body, &mut out).map_err(describe)?;
    out.truncate(n);
    Ok(out)
}

/// `body` as a snappy block. Fails when it is longer than the format can say (4 GiB).
pub fn compress(body: &[u8]) -> Result<Vec<u8>, DecodeError> {
    snap::raw::Encoder::new().compress_vec(body).map_err(describe)
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn describe(error: snap::Error) -> DecodeError {
    let text = error.to_string();
    DecodeError::Snappy(text.strip_prefix("snappy: ").unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn blocks_come_back() {
        let text = b"isobar ".repeat(1000);
        assert_eq!(decompress(&compress(&text).unwrap(), 0).unwrap(), text);
        assert_eq!(decompress(&compress(b"").unwrap(), 1).unwrap(), b"");
        assert_eq!(decompress(&compress(&[7; 1 << 20]).unwrap(), 1 << 20).unwrap(), vec![7; 1 << 20]);
    }

    #[test]
    fn declared_lengths_are_checked_first() {
        let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
        let check = |body: &[u8], limit, expected: &str| {
            assert_eq!(decompress(body, limit).unwrap_err().to_string(), expected);
        };
        check(&four_gib, 1 << 20, "decompressed body in bytes: 4294967295 is over the limit of 1048576");
        check(&four_gib, 0, "snappy: block of 5 bytes declares 4294967295 bytes, more than it can hold");
        check(b"", 0, "snappy: corrupt input (empty)");
        check(FRAME_HEADER, 0, "snappy: body is in the frame format, expected the block format");
        let cut = compress(&b"isobar ".repeat(100)).unwrap();
        assert!(matches!(decompress(&cut[..cut.len() - 1], 0), Err(DecodeError::Snappy(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(out) = decompress(&body, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
