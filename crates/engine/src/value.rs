//! What an evaluation gives: scalar, string, vector, matrix.

use std::sync::Arc;

use model::{Histogram, Labels};
use promql::ast::ValueType;

/// A float at a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// ms.
    pub timestamp: i64,
    /// Any bit pattern but the staleness marker.
    pub value: f64,
}

/// A histogram at a time.
#[derive(Clone, Debug)]
pub struct HistogramPoint {
    /// ms.
    pub timestamp: i64,
    /// The histogram.
    pub histogram: Arc<Histogram>,
}

/// What a sample of a vector holds.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// One element of an instant vector.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its labels.
    pub labels: Labels,
    /// The evaluation time, ms.
    pub timestamp: i64,
    /// Float or histogram.
    pub value: SampleValue,
}

/// One series of a matrix.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its labels.
    pub labels: Labels,
    /// Floats, ascending in time.
    pub floats: Vec<Point>,
    /// Histograms, ascending in time, at other times than the floats.
    pub histograms: Vec<HistogramPoint>,
}

/// The value of an expression.
#[derive(Clone, Debug)]
pub enum Value {
    /// A scalar at the evaluation time.
    Scalar(Point),
    /// A string and the evaluation time, ms.
    String(String, i64),
    /// An instant vector: in the order that `sort…` or `topk` gave, else sorted by labels.
    Vector(Vec<Sample>),
    /// A matrix, sorted by labels, without empty series.
    Matrix(Vec<Series>),
}

impl Value {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::Scalar(_) => ValueType::Scalar,
            Self::String(..) => ValueType::String,
            Self::Vector(_) => ValueType::Vector,
            Self::Matrix(_) => ValueType::Matrix,
        }
    }
}
