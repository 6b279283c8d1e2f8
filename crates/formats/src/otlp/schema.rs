//! The messages of OTLP metrics, with the field numbers of `opentelemetry-proto` 1.x: what JSON names stand for which
//! protobuf fields. The reader of the protobuf coding (`request`, `point`, `value`) names the same numbers.

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its name in JSON.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
}

/// How a field's value is written in JSON and coded in protobuf.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A string.
    Text,
    /// `true` or `false`; a varint.
    Bool,
    /// A number, or one of `"NaN"`, `"Infinity"`, `"-Infinity"`; 8 bytes.
    Double,
    /// A whole number or its decimal text; 8 bytes.
    Fixed64,
    /// A whole number or its decimal text; a varint.
    Varint,
    /// A whole number or its decimal text; a zigzag varint.
    Zigzag,
    /// A number, or one of these names, which stand for 0, 1 …; a varint.
    Enum(&'static [&'static str]),
    /// Bytes, as hexadecimal digits.
    Hex,
    /// Bytes, as base64.
    Base64,
    /// Another message.
    Message(&'static [Field]),
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: false }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, repeated: true }
}

pub(super) static REQUEST: [Field; 1] = [many(1, "resourceMetrics", Kind::Message(&RESOURCE_METRICS))];

static RESOURCE_METRICS: [Field; 3] = [
    one(1, "resource", Kind::Message(&RESOURCE)),
    many(2, "scopeMetrics", Kind::Message(&SCOPE_METRICS)),
    one(3, "schemaUrl", Kind::Text),
];

static RESOURCE: [Field; 1] = [many(1, "attributes", Kind::Message(&KEY_VALUE))];

static SCOPE_METRICS: [Field; 3] = [
    one(1, "scope", Kind::Message(&SCOPE)),
    many(2, "metrics", Kind::Message(&METRIC)),
    one(3, "schemaUrl", Kind::Text),
];

static SCOPE: [Field; 3] = [
    one(1, "name", Kind::Text),
    one(2, "version", Kind::Text),
    many(3, "attributes", Kind::Message(&KEY_VALUE)),
];

static METRIC: [Field; 8] = [
    one(1, "name", Kind::Text),
    one(2, "description", Kind::Text),
    one(3, "unit", Kind::Text),
    one(5, "gauge", Kind::Message(&GAUGE)),
    one(7, "sum", Kind::Message(&SUM)),
    one(9, "histogram", Kind::Message(&HISTOGRAM)),
    one(10, "exponentialHistogram", Kind::Message(&EXPONENTIAL)),
    one(11, "summary", Kind::Message(&SUMMARY)),
];

const TEMPORALITY: Kind = Kind::Enum(&[
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
]);

static GAUGE: [Field; 1] = [many(1, "dataPoints", Kind::Message(&NUMBER_POINT))];
static SUM: [Field; 3] = [
    many(1, "dataPoints", Kind::Message(&NUMBER_POINT)),
    one(2, "aggregationTemporality", TEMPORALITY),
    one(3, "isMonotonic", Kind::Bool),
];
static HISTOGRAM: [Field; 2] =
    [many(1, "dataPoints", Kind::Message(&HISTOGRAM_POINT)), one(2, "aggregationTemporality", TEMPORALITY)];
static EXPONENTIAL: [Field; 2] =
    [many(1, "dataPoints", Kind::Message(&EXPONENTIAL_POINT)), one(2, "aggregationTemporality", TEMPORALITY)];
static SUMMARY: [Field; 1] = [many(1, "dataPoints", Kind::Message(&SUMMARY_POINT))];

static NUMBER_POINT: [Field; 7] = [
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "asDouble", Kind::Double),
    many(5, "exemplars", Kind::Message(&EXEMPLAR)),
    one(6, "asInt", Kind::Fixed64),
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(8, "flags", Kind::Varint),
];

static HISTOGRAM_POINT: [Field; 9] = [
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    many(6, "bucketCounts", Kind::Fixed64),
    many(7, "explicitBounds", Kind::Double),
    many(8, "exemplars", Kind::Message(&EXEMPLAR)),
    many(9, "attributes", Kind::Message(&KEY_VALUE)),
    one(10, "flags", Kind::Varint),
];

static EXPONENTIAL_POINT: [Field; 12] = [
    many(1, "attributes", Kind::Message(&KEY_VALUE)),
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    one(6, "scale", Kind::Zigzag),
    one(7, "zeroCount", Kind::Fixed64),
    one(8, "positive", Kind::Message(&BUCKETS)),
    one(9, "negative", Kind::Message(&BUCKETS)),
    one(10, "flags", Kind::Varint),
    many(11, "exemplars", Kind::Message(&EXEMPLAR)),
    one(14, "zeroThreshold", Kind::Double),
];

static BUCKETS: [Field; 2] = [one(1, "offset", Kind::Zigzag), many(2, "bucketCounts", Kind::Varint)];

static SUMMARY_POINT: [Field; 7] = [
    one(2, "startTimeUnixNano", Kind::Fixed64),
    one(3, "timeUnixNano", Kind::Fixed64),
    one(4, "count", Kind::Fixed64),
    one(5, "sum", Kind::Double),
    many(6, "quantileValues", Kind::Message(&QUANTILE)),
    many(7, "attributes", Kind::Message(&KEY_VALUE)),
    one(8, "flags", Kind::Varint),
];

static QUANTILE: [Field; 2] = [one(1, "quantile", Kind::Double), one(2, "value", Kind::Double)];

static EXEMPLAR: [Field; 6] = [
    one(2, "timeUnixNano", Kind::Fixed64),
    one(3, "asDouble", Kind::Double),
    one(4, "spanId", Kind::Hex),
    one(5, "traceId", Kind::Hex),
    one(6, "asInt", Kind::Fixed64),
    many(7, "filteredAttributes", Kind::Message(&KEY_VALUE)),
];

static KEY_VALUE: [Field; 2] = [one(1, "key", Kind::Text), one(2, "value", Kind::Message(&ANY_VALUE))];

static ANY_VALUE: [Field; 7] = [
    one(1, "stringValue", Kind::Text),
    one(2, "boolValue", Kind::Bool),
    one(3, "intValue", Kind::Varint),
    one(4, "doubleValue", Kind::Double),
    one(5, "arrayValue", Kind::Message(&ARRAY)),
    one(6, "kvlistValue", Kind::Message(&KEY_VALUES)),
    one(7, "bytesValue", Kind::Base64),
];

static ARRAY: [Field; 1] = [many(1, "values", Kind::Message(&ANY_VALUE))];
static KEY_VALUES: [Field; 1] = [many(1, "values", Kind::Message(&KEY_VALUE))];
