//! Gzip bodies, decompressed under a limit that is checked as they grow.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use crate::DecodeError;

/// Pieces in which a body grows.
const PIECE: usize = 64 << 10;

/// The bytes that gzip `body` (one member or several) was made from. Fails with [`DecodeError::TooLarge`] as soon as
/// there are more than `limit` (0 = none), and at once when the trailer says so; never holds more than `limit` and one
/// piece of 64 KiB.
pub fn decompress(body: &[u8], limit: usize) -> Result<Vec<u8>, DecodeError> {
    let no_memory = |_| DecodeError::Gzip("no memory for the body".into());
    let declared = declared_length(body).map_or(0, |length| length as usize);
    crate::check_limit("decompressed body in bytes", declared, limit)?;
    let mut decoder = MultiGzDecoder::new(body);
    let mut out = Vec::new();
    if limit != 0 {
        // In one piece, so that it need not move while it grows; what stays unused is never touched.
        out.try_reserve_exact(declared + 1).map_err(no_memory)?;
    }
    loop {
        let before = out.len();
        let room = if limit == 0 { PIECE } else { PIECE.min(limit + 1 - before) };
        out.try_reserve(room).map_err(no_memory)?;
        let read = decoder.by_ref().take(room as u64).read_to_end(&mut out);
        read.map_err(|error| DecodeError::Gzip(error.to_string()))?;
        crate::check_limit("decompressed body in bytes", out.len(), limit)?;
        if out.len() == before {
            return Ok(out);
        }
    }
}

/// The length that the last member of gzip `body` declares, modulo 4 GiB; a hint, which may lie.
pub fn declared_length(body: &[u8]) -> Option<u32> {
    let tail = body.len().checked_sub(4).and_then(|at| body.get(at..))?;
    tail.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn packed(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_come_back_and_bombs_do_not() {
        let body = b"isobar ".repeat(100_000);
        let small = packed(&body);
        assert_eq!(decompress(&small, 0).unwrap(), body);
        assert_eq!(decompress(&small, body.len()).unwrap(), body);
        assert_eq!(declared_length(&small), Some(body.len() as u32));
        let over = decompress(&small, body.len() - 1).unwrap_err();
        assert_eq!(over.to_string(), "decompressed body in bytes: 700000 is over the limit of 699999");
        let bomb = packed(&vec![0; 32 << 20]);
        assert!(bomb.len() < 40_000);
        assert!(matches!(decompress(&bomb, 1 << 20), Err(DecodeError::TooLarge { .. })));
        let two = [packed(b"a"), packed(b"b")].concat();
        assert_eq!(decompress(&two, 0).unwrap(), b"ab");
        assert!(matches!(decompress(&small[..small.len() - 9], 0), Err(DecodeError::Gzip(_))));
        assert!(matches!(decompress(b"no gzip", 0), Err(DecodeError::Gzip(_))));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut body in proptest::collection::vec(any::<u8>(), 0..200)) {
            body.splice(0..0, *b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff");
            if let Ok(out) = decompress(&body, 1000) {
                prop_assert!(out.len() <= 1000);
            }
        }
    }
}
