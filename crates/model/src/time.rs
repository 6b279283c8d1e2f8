//! Time ranges and step grids in milliseconds, Prometheus's duration texts (`1h30m`), RFC 3339.
//!
//! All times are milliseconds since 1970-01-01 UTC, all durations milliseconds. Not here: reading a clock
//! (`seam::Clock`), durations that depend on a query (`promql`).

/// A range of timestamps, open on the left and closed on the right: `after < t <= until`, as PromQL's
/// windows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// Exclusive lower bound, ms.
    pub after: i64,
    /// Inclusive upper bound, ms.
    pub until: i64,
}

impl TimeRange {
    /// Everything.
    pub const ALL: Self = Self { after: i64::MIN, until: i64::MAX };

    /// The range from `start` to `end`, both included.
    pub fn closed(start: i64, end: i64) -> Self {
        Self { after: start.saturating_sub(1), until: end }
    }

    /// Whether `timestamp` lies in it.
    pub fn contains(&self, timestamp: i64) -> bool {
        self.after < timestamp && timestamp <= self.until
    }
}

/// The evaluation times of a query: `start`, `start + step`, …, `count` of them. An instant query has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepGrid {
    /// First evaluation time, ms.
    pub start: i64,
    /// Distance, ms; positive also when `count` is 1.
    pub step: i64,
    /// Number of evaluation times, at least 1.
    pub count: usize,
}

impl StepGrid {
    /// The grid of an instant query at `time`.
    pub fn instant(time: i64) -> Self {
        Self { start: time, step: 1, count: 1 }
    }

    /// The grid from `start` to at most `end` by `step` (positive); at least one step.
    pub fn range(start: i64, end: i64, step: i64) -> Self {
        let count = usize::try_from((end.saturating_sub(start)) / step).unwrap_or(0) + 1;
        Self { start, step, count }
    }

    /// The time of step `index`.
    pub fn at(&self, index: usize) -> i64 {
        self.start + index as i64 * self.step
    }

    /// The last evaluation time.
    pub fn end(&self) -> i64 {
        self.at(self.count - 1)
    }
}

/// Why a text is not a duration; the texts are upstream's (`model.ParseDuration`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("empty duration string")]
    Empty,
    /// Not numbers with units, the largest unit first.
    #[error("not a valid duration string: {0:?}")]
    Invalid(String),
    /// A unit that does not exist.
    #[error("unknown unit {0:?} in duration {1:?}")]
    Unit(String, String),
    /// More than 2^63 ns, about 292 years.
    #[error("duration out of range")]
    Range,
}

/// Units from largest to smallest, in ms; a year always has 365 days.
const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// What Go's `time.Duration` (int64 ns) holds, in ms.
const MAX_DURATION_MS: u64 = (i64::MAX / 1_000_000) as u64;

/// The milliseconds of a Prometheus duration: `0`, or whole numbers with units from the largest to the
/// smallest, each unit once: `1h30m`, `1y2w3d4h5m6s7ms`. Neither signs nor fractions.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(0),
        _ => {}
    }
    let invalid = || DurationError::Invalid(text.to_owned());
    let mut rest = text;
    let mut total: u64 = 0;
    let mut units = UNITS.as_slice();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_len = rest.bytes().take_while(|b| !b.is_ascii_digit()).count();
        let unit = &rest[..unit_len];
        rest = &rest[unit_len..];
        if unit.is_empty() {
            return Err(invalid());
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(DurationError::Unit(unit.to_owned(), text.to_owned()));
        }
        let at = units.iter().position(|(name, _)| *name == unit).ok_or_else(invalid)?;
        let size =
            count.checked_mul(units[at].1).filter(|ms| *ms <= MAX_DURATION_MS).ok_or(DurationError::Range)?;
        total += size;
        if total > MAX_DURATION_MS {
            return Err(DurationError::Range);
        }
        units = &units[at + 1..];
    }
    Ok(total as i64)
}

/// As [`parse_duration`], also with a leading `-`.
pub fn parse_signed_duration(text: &str) -> Result<i64, DurationError> {
    match text.strip_prefix('-') {
        Some(size) => parse_duration(size).map(|ms| -ms),
        None => parse_duration(text),
    }
}

/// A duration as Prometheus prints it: `1h30m`, `90d`, `-5m`, `0s`. Years and weeks only when nothing is left.
pub fn format_duration(ms: i64) -> String {
    use std::fmt::Write;

    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (unit, size) in UNITS {
        let exact_only = matches!(unit, "y" | "w");
        let count = rest / size;
        if count > 0 && (!exact_only || rest.is_multiple_of(size)) {
            // Writing into a String cannot fail.
            let _ = write!(out, "{count}{unit}");
            rest -= count * size;
        }
    }
    out
}

/// A calendar date and time of day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// The year; proleptic Gregorian, 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999.
    pub millisecond: u16,
    /// 0 = Sunday.
    pub weekday: u8,
    /// 1 to 366.
    pub day_of_year: u16,
}

impl Civil {
    /// The date and time of `ms`.
    pub fn from_ms(ms: i64) -> Self {
        Self::of(ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000))
    }

    /// The date and time of `seconds` as Go's `time.Unix(seconds, 0).UTC()` tells them. Go's calendar begins in March of
    /// the year −292,277,022,400; earlier times come out at its far end.
    pub fn from_seconds(seconds: i64) -> Self {
        /// From Go's first day to 1970, in seconds.
        const BEFORE_1970: i128 = 9_223_372_028_741_760_000;
        let mut seconds = i128::from(seconds);
        if seconds < -BEFORE_1970 {
            seconds += 1 << 64;
        }
        // Both fit: of at most 2^64 seconds, a day has 86,400.
        Self::of(seconds.div_euclid(86_400) as i64, seconds.rem_euclid(86_400) as i64 * 1000)
    }

    /// The `in_day`-th millisecond of day `days` after 1970-01-01.
    fn of(days: i64, in_day: i64) -> Self {
        let (year, month, day) = date_of_day(days);
        Self {
            year,
            month,
            day,
            hour: (in_day / 3_600_000) as u8,
            minute: (in_day / 60_000 % 60) as u8,
            second: (in_day / 1000 % 60) as u8,
            millisecond: (in_day % 1000) as u16,
            weekday: (days + 4).rem_euclid(7) as u8,
            day_of_year: (days - day_of_date(year, 1, 1) + 1) as u16,
        }
    }

    /// How many days the month has.
    pub fn days_in_month(&self) -> u8 {
        days_in_month(self.year, self.month)
    }
}

/// The day number (0 = 1970-01-01) of a date; after Howard Hinnant's `days_from_civil`.
fn day_of_date(year: i64, month: u8, day: u8) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let from_march = i64::from(month) + if month > 2 { -3 } else { 9 };
    let day_of_year = (153 * from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The date of a day number; the inverse of [`day_of_date`].
fn date_of_day(days: i64) -> (i64, u8, u8) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * from_march + 2) / 5 + 1) as u8;
    let month = (if from_march < 10 { from_march + 3 } else { from_march - 9 }) as u8;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The milliseconds of an RFC 3339 time such as `2026-11-22T01:02:03.456+01:00`. Digits of the fraction past
/// the third are cut off. `None` for any other text, also for dates that do not exist.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let part = bytes.get(from..to)?;
        part.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| bytes.get(*at) != Some(byte)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let month = u8::try_from(month).ok().filter(|m| (1..=12).contains(m))?;
    let day = u8::try_from(day).ok().filter(|d| (1..=days_in_month(year, month)).contains(d))?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if matches!(bytes.get(at), Some(b'.' | b',')) {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        for i in 0..3 {
            millis = millis * 10 + if i < digits { i64::from(bytes[at + 1 + i] - b'0') } else { 0 };
        }
        at += 1 + digits;
    }
    let offset_minutes = match bytes.get(at..)? {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
            if hours > 24 || minutes > 60 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds =
        day_of_date(year, month, day) * 86_400 + hour * 3600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * 1000 + millis)
}

/// `ms` as RFC 3339 in UTC, with as many digits of the fraction as it needs: `2026-11-22T01:02:03.45Z`.
pub fn format_rfc3339(ms: i64) -> String {
    let c = Civil::from_ms(ms);
    let mut out = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}",
        c.year, c.month, c.day, c.hour, c.minute, c.second, c.millisecond
    );
    out.truncate(out.trim_end_matches('0').trim_end_matches('.').len());
    out.push('Z');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_calendar_goes_as_far_as_gos() {
        // Told by Go 1.26: hour, minute, day, weekday, day of the year, days in the month, month, year.
        for (seconds, expected) in [
            (i64::MIN, (15, 30, 4, 0, 339, 31, 12, 292_277_026_596)),
            (9_200_000_000_000_000_000, (11, 33, 31, 5, 244, 31, 8, 291_536_396_232)),
            (-9_200_000_000_000_000_000, (12, 26, 3, 2, 123, 31, 5, -291_536_392_293)),
            (9_223_372_036_854_774_784, (15, 13, 4, 0, 339, 31, 12, 292_277_026_596)),
            (100_000_000_000_000_000, (9, 46, 6, 3, 250, 30, 9, 3_168_875_820)),
            (-1_000_000_000_000_000, (22, 13, 29, 0, 180, 30, 6, -31_686_769)),
            (253_402_300_800, (0, 0, 1, 6, 1, 31, 1, 10_000)),
            (-62_135_596_801, (23, 59, 31, 0, 366, 31, 12, 0)),
            (-63_000_000_000, (8, 0, 11, 6, 223, 31, 8, -27)),
        ] {
            let c = Civil::from_seconds(seconds);
            let found =
                (c.hour, c.minute, c.day, c.weekday, c.day_of_year, c.days_in_month(), c.month, c.year);
            assert_eq!(found, expected, "{seconds}");
        }
    }

    #[test]
    fn durations_as_upstream() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("324ms", 324),
            ("1h30m", 5_400_000),
            ("4d1h7m", 349_620_000),
            ("1y2w3d4h5m6s7ms", 365 * 86_400_000 + 17 * 86_400_000 + 14_706_007),
            ("292y", 292 * 365 * 86_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for (text, message) in [
            ("", "empty duration string"),
            ("1", "not a valid duration string: \"1\""),
            ("1.5h", "unknown unit \".\" in duration \"1.5h\""),
            ("1h1h", "not a valid duration string: \"1h1h\""),
            ("1m1h", "not a valid duration string: \"1m1h\""),
            ("-1m", "not a valid duration string: \"-1m\""),
            ("5y1hs", "unknown unit \"hs\" in duration \"5y1hs\""),
            ("1x", "unknown unit \"x\" in duration \"1x\""),
            ("293y", "duration out of range"),
            ("292y200d", "duration out of range"),
            ("99999999999999999999s", "not a valid duration string: \"99999999999999999999s\""),
            ("9999999999999999999s", "duration out of range"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), message, "{text}");
        }
        assert_eq!(parse_signed_duration("-1m"), Ok(-60_000));
    }

    #[test]
    fn durations_are_printed_as_upstream() {
        for (ms, text) in [
            (0, "0s"),
            (324, "324ms"),
            (3_600_000, "1h"),
            (90 * 86_400_000, "90d"),
            (14 * 86_400_000, "2w"),
            (365 * 86_400_000, "1y"),
            (365 * 86_400_000 + 1, "365d1ms"),
            (-300_000, "-5m"),
            (349_620_001, "4d1h7m1ms"),
        ] {
            assert_eq!(format_duration(ms), text);
        }
    }

    #[test]
    fn rfc3339() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2015-06-03T13:21:58.555Z", 1_433_337_718_555),
            ("2015-06-03T14:21:58.555999+01:00", 1_433_337_718_555),
            ("2024-02-29T00:00:00.5Z", 1_709_164_800_500),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ] {
            assert_eq!(parse_rfc3339(text), Some(ms), "{text}");
        }
        for text in [
            "",
            "2015-06-03",
            "2023-02-29T00:00:00Z",
            "2015-13-03T13:21:58Z",
            "2015-06-03T24:00:00Z",
            "2015-06-03T13:21:58",
            "2015-06-03T13:21:58.Z",
            "2015-06-03T13:21:58ü",
            "+015-06-03T13:21:58Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
        assert_eq!(format_rfc3339(1_433_337_718_550), "2015-06-03T13:21:58.55Z");
        assert_eq!(format_rfc3339(1_433_337_710_000), "2015-06-03T13:21:50Z");
        let civil = Civil::from_ms(1_709_164_800_500);
        assert_eq!((civil.weekday, civil.day_of_year, civil.days_in_month()), (4, 60, 29));
    }

    proptest! {
        #[test]
        fn duration_texts_parse_back(ms in 0i64..=MAX_DURATION_MS as i64) {
            prop_assert_eq!(parse_duration(&format_duration(ms)), Ok(ms));
        }

        #[test]
        fn rfc3339_texts_parse_back(ms in -62_135_596_800_000i64..253_402_300_800_000) {
            prop_assert_eq!(parse_rfc3339(&format_rfc3339(ms)), Some(ms));
        }
    }
}
