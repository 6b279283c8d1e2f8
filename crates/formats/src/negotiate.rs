//! The headers by which both sides agree on a format: `Accept` of a scrape, `Content-Type` of its answer, `Accept`
//! of whoever scrapes us, `Content-Type` of a remote write. Words and weights are upstream's
//! (`config/config.go`, `scrape/scrape.go`, `model/textparse/interface.go`).

use crate::DecodeError;

/// A format that a scrape may ask for, by the names of `scrape_protocols` in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScrapeProtocol {
    /// `PrometheusProto`
    PrometheusProto,
    /// `PrometheusText0.0.4`
    PrometheusText0_0_4,
    /// `PrometheusText1.0.0`
    PrometheusText1_0_0,
    /// `OpenMetricsText0.0.1`
    OpenMetricsText0_0_1,
    /// `OpenMetricsText1.0.0`
    OpenMetricsText1_0_0,
}

impl ScrapeProtocol {
    /// All of them, in the order in which upstream lists them in errors.
    pub const ALL: [Self; 5] = [
        Self::OpenMetricsText0_0_1,
        Self::OpenMetricsText1_0_0,
        Self::PrometheusProto,
        Self::PrometheusText0_0_4,
        Self::PrometheusText1_0_0,
    ];

    /// What upstream asks for when the configuration says nothing, most wanted first.
    pub const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The same for a job that scrapes native histograms, which only protobuf carries.
    pub const PROTOBUF_FIRST: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText1_0_0,
        Self::OpenMetricsText0_0_1,
        Self::PrometheusText1_0_0,
        Self::PrometheusText0_0_4,
    ];

    /// The protocol of that name in the configuration file.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// Its name in the configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrometheusProto => "PrometheusProto",
            Self::PrometheusText0_0_4 => "PrometheusText0.0.4",
            Self::PrometheusText1_0_0 => "PrometheusText1.0.0",
            Self::OpenMetricsText0_0_1 => "OpenMetricsText0.0.1",
            Self::OpenMetricsText1_0_0 => "OpenMetricsText1.0.0",
        }
    }

    fn media_range(self) -> &'static str {
        match self {
            Self::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Self::PrometheusText0_0_4 => "text/plain;version=0.0.4",
            Self::PrometheusText1_0_0 => "text/plain;version=1.0.0",
            Self::OpenMetricsText0_0_1 => "application/openmetrics-text;version=0.0.1",
            Self::OpenMetricsText1_0_0 => "application/openmetrics-text;version=1.0.0",
        }
    }

    /// The format that such an answer has.
    pub fn format(self) -> ExpositionFormat {
        match self {
            Self::PrometheusProto => ExpositionFormat::Protobuf,
            Self::PrometheusText0_0_4 | Self::PrometheusText1_0_0 => ExpositionFormat::Prometheus,
            Self::OpenMetricsText0_0_1 | Self::OpenMetricsText1_0_0 => ExpositionFormat::OpenMetrics,
        }
    }
}

/// What kind of parser an exposition needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExpositionFormat {
    /// Prometheus's text format.
    Prometheus,
    /// OpenMetrics text.
    OpenMetrics,
    /// Delimited protobuf (`io.prometheus.client.MetricFamily`).
    Protobuf,
}

/// The `Accept` header of a scrape that wants `protocols`, most wanted first. `escaping` is the escaping scheme that
/// is asked for of formats that know one (`allow-utf-8`, `underscores`, …).
pub fn accept_header(protocols: &[ScrapeProtocol], escaping: &str) -> String {
    let mut weight = ScrapeProtocol::ALL.len() + 1;
    let mut header = String::new();
    for protocol in protocols {
        header.push_str(protocol.media_range());
        if matches!(protocol, ScrapeProtocol::PrometheusText1_0_0 | ScrapeProtocol::OpenMetricsText1_0_0) {
            header.push_str(";escaping=");
            header.push_str(escaping);
        }
        header.push_str(&format!(";q=0.{weight},"));
        weight = weight.saturating_sub(1);
    }
    header.push_str(&format!("*/*;q=0.{weight}"));
    header
}

/// The format of a scrape's answer by its `Content-Type` (empty when it has none), and a warning when `fallback` had
/// to be used. Fails when the header names nothing known and there is no fallback.
pub fn scrape_format(
    content_type: &str,
    fallback: Option<ScrapeProtocol>,
) -> Result<(ExpositionFormat, Option<String>), DecodeError> {
    let known = match media_type(content_type).as_deref() {
        Some("application/openmetrics-text") => Some(ExpositionFormat::OpenMetrics),
        Some("application/vnd.google.protobuf") => Some(ExpositionFormat::Protobuf),
        Some("text/plain") => Some(ExpositionFormat::Prometheus),
        _ => None,
    };
    if let Some(format) = known {
        return Ok((format, None));
    }
    let shown = shorten(content_type);
    let problem = match (content_type.is_empty(), media_type(content_type)) {
        (true, _) => "non-compliant scrape target sending blank Content-Type".to_owned(),
        (false, None) => format!("cannot parse Content-Type {shown:?}"),
        (false, Some(_)) => format!("received unsupported Content-Type {shown:?}"),
    };
    match fallback {
        Some(protocol) => {
            let warning = format!("{problem}, using fallback_scrape_protocol {:?}", protocol.name());
            Ok((protocol.format(), Some(warning)))
        }
        None => Err(DecodeError::Header(format!(
            "{problem} and no fallback_scrape_protocol specified for target"
        ))),
    }
}

/// The text format that whoever sent the `Accept` header `accept` (empty when there was none) wants most of those we
/// can write; Prometheus's when it names neither.
pub fn exposition_for(accept: &str) -> ExpositionFormat {
    let mut best = (0.0, ExpositionFormat::Prometheus);
    for range in accept.split(',') {
        let format = match media_type(range).as_deref() {
            Some("application/openmetrics-text") => ExpositionFormat::OpenMetrics,
            Some("text/plain" | "text/*" | "*/*") => ExpositionFormat::Prometheus,
            _ => continue,
        };
        let quality = parameter(range, "q").map_or(1.0, |q| q.parse::<f64>().unwrap_or(0.0));
        if quality > best.0 {
            best = (quality, format);
        }
    }
    best.1
}

/// The `Content-Type` of an exposition in `format` as we write it.
pub fn content_type(format: ExpositionFormat) -> &'static str {
    match format {
        ExpositionFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8; escaping=allow-utf-8",
        ExpositionFormat::OpenMetrics => {
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
        }
        ExpositionFormat::Protobuf => {
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        }
    }
}

/// The message that a remote write carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteProtocol {
    /// `prometheus.WriteRequest` (remote write 1.0).
    V1,
    /// `io.prometheus.write.v2.Request` (remote write 2.0).
    V2,
}

/// The message that a remote write with that `Content-Type` (empty when it has none: 1.0) carries. Fails on any
/// other media type and on a `proto` parameter that is not known: the answer to that is 415.
pub fn write_protocol(content_type: &str) -> Result<WriteProtocol, DecodeError> {
    if content_type.is_empty() {
        return Ok(WriteProtocol::V1);
    }
    let shown = shorten(content_type);
    if media_type(content_type).as_deref() != Some("application/x-protobuf") {
        return Err(DecodeError::Header(format!(
            "expected application/x-protobuf as the first (media) part, got {shown:?} content-type"
        )));
    }
    if let Some(part) = parameters(content_type).find(|part| !part.is_empty() && !part.contains('=')) {
        let part = shorten(part);
        return Err(DecodeError::Header(format!(
            "expected parameters to be key-values, got {part:?} in {shown:?} content-type"
        )));
    }
    match parameter(content_type, "proto").as_deref() {
        None | Some("prometheus.WriteRequest") => Ok(WriteProtocol::V1),
        Some("io.prometheus.write.v2.Request") => Ok(WriteProtocol::V2),
        Some(_) => {
            Err(DecodeError::Header(format!("got unknown remote write protobuf message in {shown:?}")))
        }
    }
}

/// The lower-case media type of a header value without its parameters, or `None` when it is not of that form.
pub(crate) fn media_type(header: &str) -> Option<String> {
    let kind = header.split(';').next()?.trim();
    let (first, second) = kind.split_once('/')?;
    let token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    (token(first) && token(second)).then(|| kind.to_ascii_lowercase())
}

/// The value of parameter `name`, without quotes.
pub(crate) fn parameter(header: &str, name: &str) -> Option<String> {
    parameters(header).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// What stands after the media type, cut at semicolons that are not inside quotes.
fn parameters(header: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = header.split(move |character| {
        let was_escaped = escaped;
        escaped = quoted && !escaped && character == '\\';
        quoted ^= character == '"' && !was_escaped;
        character == ';' && !quoted
    });
    parts.skip(1).map(str::trim)
}

/// At most 200 bytes of `text`, for messages.
fn shorten(text: &str) -> &str {
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_are_upstreams() {
        assert_eq!(
            accept_header(&ScrapeProtocol::DEFAULT, "allow-utf-8"),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(accept_header(&[], "underscores"), "*/*;q=0.6");
        for protocol in ScrapeProtocol::ALL {
            assert_eq!(ScrapeProtocol::from_name(protocol.name()), Some(protocol));
        }
        assert_eq!(ScrapeProtocol::from_name("PrometheusText2"), None);
    }

    #[test]
    fn answers_of_targets() {
        let check = |header: &str, fallback, expected: &str| {
            let got = match scrape_format(header, fallback) {
                Ok((format, warning)) => format!("{format:?} {}", warning.unwrap_or_default()),
                Err(error) => error.to_string(),
            };
            assert_eq!(got.trim_end(), expected, "{header}");
        };
        let text = Some(ScrapeProtocol::PrometheusText0_0_4);
        check("text/plain; version=0.0.4", None, "Prometheus");
        check("TEXT/plain", None, "Prometheus");
        check("application/openmetrics-text;version=1.0.0; charset=utf-8", text, "OpenMetrics");
        check("application/vnd.google.protobuf; proto=x", None, "Protobuf");
        check(
            "",
            text,
            "Prometheus non-compliant scrape target sending blank Content-Type, using fallback_scrape_protocol \"PrometheusText0.0.4\"",
        );
        check(
            "",
            None,
            "non-compliant scrape target sending blank Content-Type and no fallback_scrape_protocol specified for target",
        );
        check(
            "text/html",
            None,
            "received unsupported Content-Type \"text/html\" and no fallback_scrape_protocol specified for target",
        );
        check(
            "nonsense",
            None,
            "cannot parse Content-Type \"nonsense\" and no fallback_scrape_protocol specified for target",
        );
    }

    #[test]
    fn what_scrapers_of_ours_want() {
        let check = |accept: &str, expected| assert_eq!(exposition_for(accept), expected, "{accept}");
        check("", ExpositionFormat::Prometheus);
        check("*/*", ExpositionFormat::Prometheus);
        check("text/html,*/*;q=0.8", ExpositionFormat::Prometheus);
        check(&accept_header(&ScrapeProtocol::DEFAULT, "allow-utf-8"), ExpositionFormat::OpenMetrics);
        check(
            "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1",
            ExpositionFormat::Prometheus,
        );
        check("application/openmetrics-text;q=0,text/plain;q=0.1", ExpositionFormat::Prometheus);
    }

    #[test]
    fn remote_writes() {
        assert_eq!(write_protocol(""), Ok(WriteProtocol::V1));
        assert_eq!(write_protocol("application/x-protobuf"), Ok(WriteProtocol::V1));
        assert_eq!(
            write_protocol("application/x-protobuf;proto=prometheus.WriteRequest"),
            Ok(WriteProtocol::V1)
        );
        assert_eq!(
            write_protocol("application/x-protobuf; proto=io.prometheus.write.v2.Request"),
            Ok(WriteProtocol::V2)
        );
        for same in [
            "Application/X-Protobuf ; Proto = \"io.prometheus.write.v2.Request\" ;",
            "application/x-protobuf;a=\"b;\\\";proto=c\";proto=io.prometheus.write.v2.Request",
        ] {
            assert_eq!(write_protocol(same), Ok(WriteProtocol::V2), "{same}");
        }
        assert!(write_protocol("application/x-protobuf;proto").is_err());
        assert!(write_protocol("application/json").is_err());
        assert!(write_protocol("application/x-protobuf;proto=foo").is_err());
    }
}
