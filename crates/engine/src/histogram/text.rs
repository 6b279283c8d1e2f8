//! Native histograms as text, as upstream writes them (label values of `count_values`, messages).

use std::fmt::Write;

use model::Histogram;

use super::buckets::{Bucket, negative_buckets, positive_buckets, zero_bucket};
use model::number::format_float_g as general;

/// `{count:2, sum:3, (1,2]:2}`: empty buckets are left out.
pub(crate) fn to_text(h: &Histogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", general(h.count), general(h.sum));
    let negative: Vec<Bucket> = negative_buckets(h).filter(|b| b.count != 0.0).collect();
    for bucket in negative.iter().rev() {
        push(&mut out, bucket);
    }
    if !h.has_custom_buckets() && h.zero_count != 0.0 {
        push(&mut out, &zero_bucket(h));
    }
    for bucket in positive_buckets(h).filter(|b| b.count != 0.0) {
        push(&mut out, &bucket);
    }
    out.push('}');
    out
}

fn push(out: &mut String, bucket: &Bucket) {
    let open = if bucket.lower_inclusive { '[' } else { '(' };
    let close = if bucket.upper_inclusive { ']' } else { ')' };
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        ", {open}{},{}{close}:{}",
        general(bucket.lower),
        general(bucket.upper),
        general(bucket.count)
    );
}
