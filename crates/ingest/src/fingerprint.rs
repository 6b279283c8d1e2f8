//! Label bytes as they stand in a request, to a 128-bit fingerprint: xxh3 under a secret of this process, so that
//! nobody outside can make two series collide. The same series written in another order has another fingerprint.

use std::hash::{BuildHasher, Hasher, RandomState};

use model::TenantId;
use model::seam::DecodeLabels;
use xxhash_rust::xxh3::xxh3_128_with_secret;

const SECRET_BYTES: usize = 192;

/// Makes fingerprints.
pub(crate) struct Fingerprints {
    secret: [u8; SECRET_BYTES],
}

/// What belongs to a fingerprint besides the label bytes; the same for a whole batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context(u128);

impl Fingerprints {
    pub(crate) fn new() -> Self {
        let mut secret = [0; SECRET_BYTES];
        for (at, piece) in secret.chunks_exact_mut(8).enumerate() {
            // Each state has random keys.
            let mut hasher = RandomState::new().build_hasher();
            hasher.write_usize(at);
            piece.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        Self { secret }
    }

    /// The context of batches of `tenant` whose labels `decode` reads, under the rules of `epoch`.
    pub(crate) fn context(&self, tenant: &TenantId, decode: DecodeLabels, epoch: u64) -> Context {
        let mut bytes = Vec::with_capacity(32 + tenant.as_str().len());
        bytes.extend_from_slice(&(decode as usize).to_le_bytes());
        bytes.extend_from_slice(&epoch.to_le_bytes());
        bytes.extend_from_slice(tenant.as_str().as_bytes());
        // Twice, so that no label bytes have the same hash by being the same bytes.
        let once = xxh3_128_with_secret(&bytes, &self.secret);
        Context(xxh3_128_with_secret(&once.to_le_bytes(), &self.secret))
    }

    #[inline]
    pub(crate) fn of(&self, context: Context, labels: &[u8]) -> u128 {
        xxh3_128_with_secret(labels, &self.secret) ^ context.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::LabelError;
    use model::seam::decode_canonical;

    fn other(_: &[u8], _: &mut model::LabelsBuilder) -> Result<(), LabelError> {
        Err(LabelError::EmptyName)
    }

    #[test]
    fn everything_counts() {
        let prints = Fingerprints::new();
        let tenant = |name| TenantId::new(name).unwrap();
        let base = prints.context(&tenant("a"), decode_canonical, 0);
        assert_eq!(base, prints.context(&tenant("a"), decode_canonical, 0));
        assert_ne!(base, prints.context(&tenant("b"), decode_canonical, 0));
        assert_ne!(base, prints.context(&tenant("a"), decode_canonical, 1));
        assert_ne!(base, prints.context(&tenant("a"), other, 0));
        assert_ne!(prints.of(base, b"x"), prints.of(base, b"y"));
        assert_ne!(prints.of(base, b"x"), Fingerprints::new().of(base, b"x"));
    }
}
