//! From labels to the placement key (which shard) and the source key (which rows), by a hash that must stay the
//! same for ever: xxh3 of length-prefixed parts. The golden values in the tests guard it.
//!
//! | series | high 40 bits of the key | low 24 bits |
//! |---|---|---|
//! | with `instance` | hash(tenant, `job`, `instance`) | hash(labels without name, `job`, `instance`, `le`, `quantile`) |
//! | without | hash(tenant, labels without name, `le`, `quantile`) | the same hash |
//!
//! The name is `__name__`, `__type__` and `__unit__`: what PromQL drops together. So the series of a target are
//! neighbours, the series of a classic histogram or summary share one key, and so do the two sides of `a / b` and all
//! series that become the same when their names are dropped. A change here is a new placement scheme ([`crate::shard_map::SCHEME`]).

use model::labels::push_pair;
use model::{Labels, METRIC_NAME, TenantId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// How many low bits of a placement key tell the series of one target apart.
pub const LOW_BITS: u32 = 24;

/// First byte of what is hashed, so that hashes of different things never agree by construction.
mod domain {
    pub(super) const TARGET: u8 = 1;
    pub(super) const WITHIN_TARGET: u8 = 2;
    pub(super) const WHOLE_SERIES: u8 = 3;
    pub(super) const LOOSE_SOURCE: u8 = 4;
    pub(super) const FAMILY: u8 = 5;
}

/// The identity of a row source: what the series of one target have in common. Equal for equal (tenant, `job`,
/// `instance`); for series without `instance`, for equal (tenant, `job`, top 8 bits of the placement key).
/// A stable 128-bit hash. Sources in ascending order are also in ascending order of their placement keys' high
/// bits (8 of them for series without `instance`, [`LOW_BITS`] less than all for others).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourceKey(pub u128);

/// Both answers for one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The placement key: [`crate::ShardMap::route`] takes it.
    pub key: u64,
    /// The source of the series.
    pub source: SourceKey,
}

/// The placement key of the series `labels` of `tenant`.
pub fn placement_key(tenant: &TenantId, labels: &Labels) -> u64 {
    place(tenant, labels).key
}

/// The source of the series `labels` of `tenant`.
pub fn source_key(tenant: &TenantId, labels: &Labels) -> SourceKey {
    place(tenant, labels).source
}

/// Placement key and source together, for the price of one.
pub fn place(tenant: &TenantId, labels: &Labels) -> Placement {
    let mut job = "";
    let mut instance = "";
    let mut rest = Vec::with_capacity(labels.as_bytes().len() + 16);
    rest.push(domain::WITHIN_TARGET);
    for (name, value) in labels {
        match name {
            "job" => job = value,
            "instance" => instance = value,
            METRIC_NAME | "__type__" | "__unit__" | "le" | "quantile" => {}
            _ => push_pair(&mut rest, name, value),
        }
    }
    if instance.is_empty() {
        let key = whole_series_key(tenant, job, &rest[1..]);
        return Placement { key, source: loose_source(tenant, job, key) };
    }
    let target = target_hash(tenant, job, instance);
    let low = xxh3_64(&rest) >> (64 - LOW_BITS);
    Placement { key: high_bits(target) | low, source: SourceKey(target) }
}

/// The first and last key that series of the target (tenant, `job`, `instance`) can have; `instance` is not
/// empty, `job` is empty for series without one.
pub fn target_keys(tenant: &TenantId, job: &str, instance: &str) -> (u64, u64) {
    let first = high_bits(target_hash(tenant, job, instance));
    (first, first | ((1 << LOW_BITS) - 1))
}

/// The key by which metadata of metric family `family` is routed.
pub fn family_key(tenant: &TenantId, family: &str) -> u64 {
    let mut bytes = vec![domain::FAMILY];
    push_pair(&mut bytes, tenant.as_str(), family);
    xxh3_64(&bytes)
}

fn high_bits(target: u128) -> u64 {
    ((target >> 64) as u64) >> LOW_BITS << LOW_BITS
}

fn target_hash(tenant: &TenantId, job: &str, instance: &str) -> u128 {
    let mut bytes = Vec::with_capacity(8 + tenant.as_str().len() + job.len() + instance.len());
    bytes.push(domain::TARGET);
    push_pair(&mut bytes, tenant.as_str(), job);
    push_pair(&mut bytes, instance, "");
    xxh3_128(&bytes)
}

/// `rest` holds the pairs other than the left-out ones and `job`, which comes first here.
fn whole_series_key(tenant: &TenantId, job: &str, rest: &[u8]) -> u64 {
    let mut bytes = Vec::with_capacity(8 + tenant.as_str().len() + job.len() + rest.len());
    bytes.push(domain::WHOLE_SERIES);
    push_pair(&mut bytes, tenant.as_str(), job);
    bytes.extend_from_slice(rest);
    xxh3_64(&bytes)
}

fn loose_source(tenant: &TenantId, job: &str, key: u64) -> SourceKey {
    let top = (key >> 56) as u8;
    let mut bytes = vec![domain::LOOSE_SOURCE, top];
    push_pair(&mut bytes, tenant.as_str(), job);
    let hash = xxh3_128(&bytes);
    SourceKey(hash >> 8 | u128::from(top) << 120)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    /// `{a="x",b="y"}` without quotes: `a=x,b=y`.
    fn labels(text: &str) -> Labels {
        Labels::from_pairs(text.split(',').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap()))
            .unwrap()
    }

    fn key(text: &str) -> u64 {
        placement_key(&TenantId::anonymous(), &labels(text))
    }

    /// If one of these changes, data that is already stored is looked for in the wrong place: do not change them.
    #[test]
    fn the_hash_is_the_same_for_ever() {
        let check = |tenant_name: &str, text: &str, expected: &str| {
            let Placement { key, source } = place(&tenant(tenant_name), &labels(text));
            assert_eq!(format!("{key:016x} {:032x}", source.0), expected, "{tenant_name} {text}");
        };
        check("anonymous", "", "affdc09c28bebfb5 af35254704bd1a9e491fa00c4f95fa18");
        check(
            "anonymous",
            "__name__=up,instance=localhost:9090,job=isobar",
            "6f1e1dad50c9f42e 6f1e1dad50f4cc31d51dc20d8ff5b52c",
        );
        check(
            "anonymous",
            "__name__=http_requests_total,instance=a:80,job=api,code=200,path=/x",
            "78402efd24a1f2d6 78402efd24a72ab98a2fc77f93ec1b34",
        );
        check(
            "anonymous",
            "__name__=http_requests_total,instance=a:80,code=200,path=/x",
            "43229e2d3fa1f2d6 43229e2d3fd9623a4b11f92235e105f3",
        );
        check(
            "team-a",
            "__name__=http_requests_total,instance=a:80,job=api,code=200,path=/x",
            "2dba5b1a1ba1f2d6 2dba5b1a1bf78eb66d2781339fc76c25",
        );
        check(
            "anonymous",
            "__name__=job:errors:rate5m,job=api,code=500",
            "b50d050b955a2db9 b57590c9304eb42db15b1d1e5ac6bf29",
        );
        check("anonymous", "__name__=x,zone=eu", "5725cf49c837991f 5722cf381f094ca411b65167ea2c26e6");
        assert_eq!(format!("{:016x}", family_key(&tenant("anonymous"), "up")), "ce4d318bd12d62c6");
    }

    #[test]
    fn series_of_a_target_are_neighbours_and_of_one_source() {
        let a = place(&TenantId::anonymous(), &labels("__name__=up,instance=a:80,job=api"));
        let b = place(&TenantId::anonymous(), &labels("__name__=x,instance=a:80,job=api,code=500,path=/"));
        let c = place(&TenantId::anonymous(), &labels("__name__=up,instance=b:80,job=api"));
        assert_eq!(a.key >> LOW_BITS, b.key >> LOW_BITS);
        assert_ne!(a.key, b.key);
        assert_eq!(a.source, b.source);
        assert_ne!(a.source, c.source);
        assert_ne!(a.key >> LOW_BITS, c.key >> LOW_BITS);
        let (first, last) = target_keys(&TenantId::anonymous(), "api", "a:80");
        assert!(
            (first..=last).contains(&a.key)
                && (first..=last).contains(&b.key)
                && !(first..=last).contains(&c.key)
        );
    }

    #[test]
    fn buckets_quantiles_and_both_sides_of_a_ratio_share_a_key() {
        for target in ["instance=a:80,job=api,", "job=api,", ""] {
            let bucket = key(&format!("{target}__name__=h_bucket,le=0.5,code=200"));
            assert_eq!(bucket, key(&format!("{target}__name__=h_bucket,le=+Inf,code=200")));
            assert_eq!(bucket, key(&format!("{target}__name__=h_sum,code=200")));
            assert_eq!(bucket, key(&format!("{target}__name__=s,quantile=0.9,code=200")));
            assert_eq!(bucket, key(&format!("{target}__name__=g,__type__=gauge,__unit__=s,code=200")));
            assert_ne!(bucket, key(&format!("{target}__name__=h_sum,code=500")));
        }
    }

    #[test]
    fn tenant_job_and_instance_never_run_together() {
        let of = |tenant_name: &str, text: &str| place(&tenant(tenant_name), &labels(text));
        assert_ne!(of("ab", "job=c,instance=d"), of("a", "job=bc,instance=d"));
        assert_ne!(of("a", "job=cd,instance=d"), of("a", "job=c,instance=dd"));
        assert_ne!(of("a", "job=cd").key, of("a", "job=c,d=d").key);
    }

    proptest! {
        #[test]
        fn order_of_sources_follows_order_of_keys(
            a in "[a-c]{0,2}", b in "[a-c]{0,2}", zone in "[a-z]{1,3}", other in "[a-z]{1,3}", with in any::<bool>(),
        ) {
            let make = |job: &str, zone: &str| {
                let instance = if with { zone } else { "" };
                Labels::from_pairs([("job", job), ("instance", instance), ("zone", zone), ("__name__", "x")]).unwrap()
            };
            let (x, y) = (make(&a, &zone), make(&b, &other));
            let (x, y) = (place(&TenantId::anonymous(), &x), place(&TenantId::anonymous(), &y));
            let shift = if with { LOW_BITS } else { 56 };
            prop_assert_eq!(x.key >> shift, (x.source.0 >> 64) as u64 >> shift);
            if x.key >> shift < y.key >> shift {
                prop_assert!(x.source < y.source);
            }
        }
    }
}
