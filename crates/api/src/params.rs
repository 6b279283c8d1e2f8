//! What clients send: query strings and form bodies, times, durations, limits, in upstream's forms and with
//! upstream's error texts (`web/api/v1/api.go`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use http::header;
use model::{TenantId, TimeRange, number, time};
use query::Origin;

use crate::body::read_limited;
use crate::error::{ApiError, ErrorKind};
use crate::listen::ClientAddress;
use crate::state::ApiState;

/// Most `match[]` parameters of a request.
const MAX_SELECTORS: usize = 1_000;

/// Upstream's smallest and largest time as clients print them; they mean "open".
const MIN_TIME_TEXT: &str = "-292273086-05-16T16:47:06Z";
const MAX_TIME_TEXT: &str = "292277025-08-18T07:12:54.999999999Z";

/// The parameters of a request: those of a form body first, then those of the query string.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    /// Whose request.
    tenant: Option<TenantId>,
    /// Where it came from, for the query log.
    pub(crate) origin: Option<Origin>,
    /// The value of [`START_TIMESTAMPS_HEADER`].
    start_timestamps: Option<String>,
}

/// Overrides the feature `use-start-timestamps` for one query, as upstream has it since 3.16.
const START_TIMESTAMPS_HEADER: &str = "X-Prometheus-Use-Start-Timestamps";

impl Params {
    /// The first value of `name`, or the empty string.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.pairs.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// All names with their values, as they came.
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// All values of `name`.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The tenant: the one that the request names, or that of requests that name none.
    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant.clone().unwrap_or_else(TenantId::anonymous)
    }

    /// Values of `match[]`, within their limit.
    pub(crate) fn selectors(&self) -> Result<Vec<&str>, ApiError> {
        let all: Vec<&str> = self.all("match[]").collect();
        if all.len() > MAX_SELECTORS {
            let count = all.len();
            return Err(ApiError::bad_data(format!(
                "{count} match[] parameters, the limit is {MAX_SELECTORS}"
            )));
        }
        Ok(all)
    }

    /// A whole number that is not negative; 0 (= no limit) when absent.
    pub(crate) fn limit(&self, name: &str) -> Result<usize, ApiError> {
        let text = self.get(name);
        if text.is_empty() {
            return Ok(0);
        }
        let value = atoi(text).map_err(|why| ApiError::parameter(name, why))?;
        usize::try_from(value).map_err(|_| ApiError::parameter(name, "limit must be non-negative"))
    }

    /// A whole number, −1 when absent.
    pub(crate) fn signed(&self, name: &str) -> Result<i64, ApiError> {
        match self.get(name) {
            "" => Ok(-1),
            text => atoi(text).map_err(|_| ApiError::bad_data(format!("{name} must be a number"))),
        }
    }

    /// A time in ms, or `default` when absent.
    pub(crate) fn time_or(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        match self.get(name) {
            "" => Ok(default),
            text => parse_time(text)
                .map_err(|why| ApiError::parameter(name, format!("invalid time value for '{name}': {why}"))),
        }
    }

    /// A time in ms that must be there.
    pub(crate) fn time(&self, name: &str) -> Result<i64, ApiError> {
        parse_time(self.get(name)).map_err(|why| ApiError::parameter(name, why))
    }

    /// `start` and `end`, both included; open where absent.
    pub(crate) fn range(&self) -> Result<TimeRange, ApiError> {
        let start = self.time_or("start", i64::MIN)?;
        let end = self.time_or("end", i64::MAX)?;
        Ok(TimeRange::closed(start, end))
    }

    /// A duration in nanoseconds, if present.
    pub(crate) fn duration_ns(&self, name: &str) -> Result<Option<i64>, String> {
        match self.get(name) {
            "" => Ok(None),
            text => parse_duration_ns(text).map(Some),
        }
    }

    /// Whether the request wants start timestamps used or not, if it says so.
    pub(crate) fn use_start_timestamps(&self) -> Result<Option<bool>, ApiError> {
        match self.start_timestamps.as_deref().map(str::trim) {
            None | Some("") => Ok(None),
            Some(text) => go_bool(text).map(Some).ok_or_else(|| {
                ApiError::bad_data(format!("invalid {START_TIMESTAMPS_HEADER}: not true or false"))
            }),
        }
    }

    /// The parameter `timeout`.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, ApiError> {
        let ns = self.duration_ns("timeout").map_err(|why| ApiError::parameter("timeout", why))?;
        Ok(ns.map(|ns| Duration::from_nanos(u64::try_from(ns).unwrap_or(0))))
    }
}

impl FromRequest<Arc<ApiState>> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let origin = Origin {
            client: parts.extensions.get::<ClientAddress>().map_or(String::new(), |at| at.0.ip().to_string()),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
        };
        let tenant = Some(tenant(&parts.headers, state)?);
        let start_timestamps = parts
            .headers
            .get(START_TIMESTAMPS_HEADER)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let mut params = Self { pairs: Vec::new(), tenant, origin: Some(origin), start_timestamps };
        let form = |value: &http::HeaderValue| {
            let media = value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim();
            media.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        };
        let has_form = parts.headers.get(header::CONTENT_TYPE).is_some_and(form);
        if has_form && matches!(parts.method, http::Method::POST | http::Method::PUT | http::Method::PATCH) {
            let settings = &state.settings;
            let bytes = read_limited(body, settings.max_form_bytes, settings.body_timeout).await?;
            decode_form(&bytes, &mut params.pairs)?;
        }
        decode_form(parts.uri.query().unwrap_or("").as_bytes(), &mut params.pairs)?;
        Ok(params)
    }
}

/// The headers that name a tenant; the second is Thanos's.
const TENANT_HEADERS: [&str; 2] = ["x-scope-orgid", "thanos-tenant"];

/// The tenant that the headers name, the default one when they name none; always the anonymous one with tenancy off.
/// A name that breaks the rules, and two different names, are refused: it must never be guessed whose data is meant.
pub(crate) fn tenant(headers: &http::HeaderMap, state: &ApiState) -> Result<TenantId, ApiError> {
    if !state.settings.tenancy {
        return Ok(TenantId::anonymous());
    }
    let mut named: Option<TenantId> = None;
    for header in TENANT_HEADERS {
        for value in headers.get_all(header) {
            let invalid = |why: &dyn std::fmt::Display| {
                let header = if header == "x-scope-orgid" { "X-Scope-OrgID" } else { "THANOS-TENANT" };
                ApiError::bad_data(format!("invalid {header}: {why}"))
            };
            let name = value.to_str().map_err(|_| invalid(&"not printable ASCII"))?;
            let tenant = TenantId::new(name).map_err(|why| invalid(&why))?;
            if named.as_ref().is_some_and(|before| *before != tenant) {
                return Err(invalid(&"the headers name several tenants"));
            }
            named = Some(tenant);
        }
    }
    Ok(named.unwrap_or_else(|| state.settings.default_tenant.clone()))
}

/// Decodes `a=b&c=d` as Go does: `+` is a space, `%xx` a byte, `;` is not a separator but an error.
pub(crate) fn decode_form(text: &[u8], into: &mut Vec<(String, String)>) -> Result<(), ApiError> {
    for pair in text.split(|b| *b == b'&').filter(|pair| !pair.is_empty()) {
        if pair.contains(&b';') {
            return Err(ApiError::bad_data(
                "error parsing form values: invalid semicolon separator in query",
            ));
        }
        let cut = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let name = unescape(&pair[..cut])?;
        let value = unescape(pair.get(cut + 1..).unwrap_or(&[]))?;
        into.push((name, value));
    }
    Ok(())
}

fn unescape(text: &[u8]) -> Result<String, ApiError> {
    let hex = |b: u8| char::from(b).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match text[at] {
            b'%' => {
                let high = text.get(at + 1).copied().and_then(hex);
                let low = text.get(at + 2).copied().and_then(hex);
                let (Some(high), Some(low)) = (high, low) else {
                    let shown = String::from_utf8_lossy(&text[at..text.len().min(at + 3)]).into_owned();
                    let message = format!("error parsing form values: invalid URL escape {shown:?}");
                    return Err(ApiError::bad_data(message));
                };
                out.push(high << 4 | low);
                at += 3;
            }
            b'+' => {
                out.push(b' ');
                at += 1;
            }
            byte => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).map_err(|_| ApiError::bad_data("error parsing form values: not valid UTF-8"))
}

/// Go's `strconv.Atoi`.
fn atoi(text: &str) -> Result<i64, String> {
    let shown: String = text.chars().take(64).collect();
    text.parse::<i64>().map_err(|error| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {shown:?}: {why}")
    })
}

/// A time in ms: a float of seconds, or RFC 3339.
/// What Go's `strconv.ParseBool` takes for a truth value.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

pub(crate) fn parse_time(text: &str) -> Result<i64, String> {
    let shown: String = text.chars().take(64).collect();
    let bad = || format!("cannot parse {shown:?} to a valid timestamp");
    if let Ok(seconds) = number::parse_float(text) {
        let ms = (seconds.trunc() * 1000.0) + (seconds.fract() * 1000.0).round();
        // Beyond this no integer of nanoseconds in Go's time holds the value either.
        if ms.is_nan() || ms.abs() >= 9.2e18 {
            return Err(bad());
        }
        return Ok(ms as i64);
    }
    match text {
        MIN_TIME_TEXT => Ok(i64::MIN),
        MAX_TIME_TEXT => Ok(i64::MAX),
        _ => time::parse_rfc3339(text).ok_or_else(bad),
    }
}

/// A duration in nanoseconds: a float of seconds, or `1h30m`.
pub(crate) fn parse_duration_ns(text: &str) -> Result<i64, String> {
    let shown: String = text.chars().take(64).collect();
    if let Ok(seconds) = number::parse_float(text) {
        let ns = seconds * 1e9;
        if ns.is_nan() || ns.abs() >= 9.223_372_036_854_775e18 {
            return Err(format!("cannot parse {shown:?} to a valid duration. It overflows int64"));
        }
        return Ok(ns as i64);
    }
    let bad = || format!("cannot parse {shown:?} to a valid duration");
    let ms = time::parse_duration(text).map_err(|_| bad())?;
    ms.checked_mul(1_000_000).ok_or_else(bad)
}

/// Media types of an `Accept`-like header, best first, those with `q=0` left out.
pub(crate) fn accepted(headers: &http::HeaderMap, name: header::HeaderName) -> Vec<(String, f32)> {
    let mut all = Vec::new();
    for value in headers.get_all(name).iter().filter_map(|v| v.to_str().ok()) {
        for item in value.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let media = parts.next().unwrap_or("").to_ascii_lowercase();
            let rest: Vec<&str> = parts.collect();
            let q = rest
                .iter()
                .find_map(|p| p.strip_prefix("q="))
                .and_then(|q| q.parse::<f32>().ok())
                .unwrap_or(1.0);
            if !media.is_empty() && q > 0.0 {
                all.push((media, q));
            }
        }
    }
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

/// Answers paths that take no parameters but must not be asked otherwise.
pub(crate) fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorKind::TooLarge, format!("request body is larger than the limit of {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(parse_time(text).ok(), expected, "{text}");
        check("1435781451.781", Some(1_435_781_451_781));
        check("0.0005", Some(1));
        check("-1.5", Some(-1_500));
        check("2015-07-01T20:10:51.781Z", Some(1_435_781_451_781));
        check(MIN_TIME_TEXT, Some(i64::MIN));
        check(MAX_TIME_TEXT, Some(i64::MAX));
        for bad in ["", "now", "NaN", "Inf", "-Inf", "1e308", "2015-13-01T00:00:00Z"] {
            check(bad, None);
        }
        assert_eq!(parse_time("x").unwrap_err(), "cannot parse \"x\" to a valid timestamp");
    }

    #[test]
    fn durations() {
        let check =
            |text: &str, expected: Option<i64>| assert_eq!(parse_duration_ns(text).ok(), expected, "{text}");
        check("0.5", Some(500_000_000));
        check("1h30m", Some(5_400_000_000_000));
        check("-1", Some(-1_000_000_000));
        for bad in ["", "x", "NaN", "1e30", "-1e30", "99999999999y"] {
            check(bad, None);
        }
        let overflow = parse_duration_ns("1e30").unwrap_err();
        assert_eq!(overflow, "cannot parse \"1e30\" to a valid duration. It overflows int64");
    }

    #[test]
    fn forms_decode_as_in_go() {
        let check = |text: &str| {
            let mut pairs = Vec::new();
            let result = decode_form(text.as_bytes(), &mut pairs);
            result.map(|()| pairs).map_err(|e| e.message)
        };
        let pairs = check("query=a%2Bb+c&match[]=x&match%5B%5D=%C3%A9&&empty&n=").unwrap();
        let expected = [("query", "a+b c"), ("match[]", "x"), ("match[]", "é"), ("empty", ""), ("n", "")]
            .map(|(n, v)| (n.into(), v.into()));
        assert_eq!(pairs, expected);
        assert!(check("a=%zz").unwrap_err().contains("invalid URL escape \"%zz\""));
        assert!(check("a=%2").unwrap_err().contains("invalid URL escape"));
        assert!(check("a=1;b=2").unwrap_err().contains("semicolon"));
        assert!(check("a=%ff").unwrap_err().contains("UTF-8"));
    }

    #[test]
    fn numbers_fail_with_the_words_of_go() {
        assert_eq!(atoi("x").unwrap_err(), "strconv.Atoi: parsing \"x\": invalid syntax");
        assert_eq!(
            atoi("9223372036854775808").unwrap_err(),
            "strconv.Atoi: parsing \"9223372036854775808\": value out of range"
        );
        assert_eq!(atoi("-1"), Ok(-1));
    }
}
