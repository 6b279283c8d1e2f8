//! What start (created) timestamps of neighbouring samples say about counter resets.

/// Whether the counter was reset between two samples, by their start timestamps (0 = not known).
pub(super) fn is_reset(previous_start: i64, previous: i64, start: i64, time: i64) -> bool {
    if start == 0 || start >= time || start < previous || start == previous_start {
        return false;
    }
    if start > previous {
        return true;
    }
    // It points at the previous sample: a delta, or a cumulative series whose start is not known.
    previous_start <= previous && previous_start != 0 && previous_start != previous
}

/// Whether a sample's start timestamp contradicts the sample before it.
pub(super) fn overlaps(previous_start: i64, previous: i64, start: i64) -> bool {
    start != 0 && start < previous && start != previous_start
}
