//! The closed expression: what is evaluated, with all times and durations as numbers.
//!
//! It is made by `close.rs` and carried out by `eval`.

use model::Matcher;
use promql::ast::{AggregateOp, BinaryOp, Extended, Span, ValueType, VectorMatching};

/// A closed expression.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
    /// The same at every step, and worth evaluating only once.
    pub(crate) once: bool,
    /// Evaluated elsewhere, as this part (`distribute`).
    pub(crate) remote: Option<usize>,
}

/// The kinds of closed expression.
#[derive(Debug)]
pub(crate) enum Kind {
    Number(f64),
    Text(String),
    /// A string that is not UTF-8: no label name, no label value.
    Bytes(Vec<u8>),
    Select(Select),
    Matrix(Select, i64),
    Subquery(Box<Sub>),
    Call(Call),
    Aggregate(Box<Group>),
    Binary(Box<Pair>),
    Negate(Box<Node>),
    Plus(Box<Node>),
}

/// Which series, and when.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) time: Shift,
    pub(crate) extended: Extended,
    /// Only counts and sums of native histograms are asked for: resets are found out while reading.
    pub(crate) stats: bool,
}

/// When something is evaluated, as a function of the step's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shift {
    /// Instead of the step's time, ms.
    pub(crate) at: Option<i64>,
    /// Subtracted, ms.
    pub(crate) offset: i64,
}

impl Shift {
    /// The time meant at a step.
    pub(crate) fn apply(self, step: i64) -> i64 {
        self.at.unwrap_or(step).saturating_sub(self.offset)
    }
}

/// A subquery; all in ms.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) inner: Node,
    pub(crate) range: i64,
    pub(crate) step: i64,
    pub(crate) time: Shift,
}

/// A function call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<Node>,
}

/// An aggregation.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) op: AggregateOp,
    pub(crate) inner: Node,
    pub(crate) param: Option<Node>,
    /// Sorted.
    pub(crate) labels: Vec<String>,
    pub(crate) without: bool,
}

/// A binary operation.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) op: BinaryOp,
    pub(crate) lhs: Node,
    pub(crate) rhs: Node,
    pub(crate) matching: Option<VectorMatching>,
    pub(crate) return_bool: bool,
}

impl Node {
    /// The type of its value.
    pub(crate) fn value_type(&self) -> ValueType {
        match &self.kind {
            Kind::Number(_) => ValueType::Scalar,
            Kind::Text(_) | Kind::Bytes(_) => ValueType::String,
            Kind::Select(_) | Kind::Aggregate(_) => ValueType::Vector,
            Kind::Matrix(..) | Kind::Subquery(_) => ValueType::Matrix,
            Kind::Call(call) => returns(call.name),
            Kind::Binary(pair) => match (pair.lhs.value_type(), pair.rhs.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            Kind::Negate(inner) | Kind::Plus(inner) => inner.value_type(),
        }
    }
}

/// At what time the selectors of an expression look, as far as they agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// There is nothing that makes a vector.
    None,
    /// All at this time, ms.
    Fixed(i64),
    /// All this long before the step, ms.
    Before(i64),
    /// At different times.
    Mixed,
}

impl Reference {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, x) | (x, Self::None) => x,
            (a, b) if a == b => a,
            _ => Self::Mixed,
        }
    }
}

impl Node {
    /// At what time the parts that make vectors look; scalars and the selector of `info` do not count.
    pub(crate) fn reference(&self) -> Reference {
        let of = |shift: Shift, before: i64| match shift.at {
            Some(at) => Reference::Fixed(at.saturating_sub(shift.offset).saturating_sub(before)),
            None => Reference::Before(shift.offset.saturating_add(before)),
        };
        match &self.kind {
            Kind::Number(_) | Kind::Text(_) | Kind::Bytes(_) => Reference::None,
            Kind::Select(select) | Kind::Matrix(select, _) => of(select.time, 0),
            Kind::Subquery(sub) => match sub.inner.reference() {
                Reference::Before(before) => of(sub.time, before),
                other => other,
            },
            Kind::Aggregate(group) => group.inner.reference(),
            Kind::Binary(pair) => pair.lhs.reference().and(pair.rhs.reference()),
            Kind::Negate(inner) | Kind::Plus(inner) => inner.reference(),
            Kind::Call(_) if self.value_type() == ValueType::Scalar => Reference::None,
            Kind::Call(call) => {
                let args = if call.name == "info" { &call.args[..1] } else { &call.args[..] };
                match args.iter().fold(Reference::None, |all, arg| all.and(arg.reference())) {
                    // A vector out of nothing is one of the step.
                    Reference::None => Reference::Before(0),
                    all => all,
                }
            }
        }
    }
}

fn returns(name: &str) -> ValueType {
    match name {
        "scalar" | "time" | "pi" | "max_of" | "min_of" => ValueType::Scalar,
        _ => ValueType::Vector,
    }
}
