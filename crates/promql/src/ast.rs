//! The syntax tree. Every node has its span in the query text (bytes); names and meanings follow upstream's
//! `promql/parser/ast.go`.
//!
//! Not here: parsing (`parse.rs`), printing (`print.rs`), evaluation (`engine`).

use model::Matcher;

/// A half-open range of byte offsets in the query text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One float a step.
    Scalar,
    /// One string.
    String,
    /// Series with one sample a step.
    Vector,
    /// Series with a range of samples a step.
    Matrix,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where it stands.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number, also a duration written as one; the flag says that it was written as a duration.
    Number {
        /// Its value (seconds for a duration).
        value: f64,
        /// Written as a duration.
        is_duration: bool,
    },
    /// A string.
    String(String),
    /// A string whose escapes (`"\xc5"`) make bytes that are not UTF-8; of type string, usable nowhere.
    Bytes(Vec<u8>),
    /// An instant vector selector.
    Selector(Box<Selector>),
    /// A range vector selector.
    Matrix(Box<MatrixSelector>),
    /// A subquery.
    Subquery(Box<Subquery>),
    /// A function call.
    Call(Box<Call>),
    /// An aggregation.
    Aggregate(Box<Aggregate>),
    /// A binary operation.
    Binary(Box<Binary>),
    /// `-` or `+` before an expression; `true` = minus.
    Unary(bool, Box<Expr>),
    /// Parentheses.
    Paren(Box<Expr>),
}

/// When a selector or subquery is evaluated instead of at the step's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// `@ 123.4`, in ms.
    Time(i64),
    /// `@ start()`.
    Start,
    /// `@ end()`.
    End,
}

/// `offset`, `@`: shared by selectors and subqueries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Modifiers {
    /// Offset in ms (negative looks ahead). Meaningless while `offset_expr` is set and not yet resolved.
    pub offset_ms: i64,
    /// An offset given by an expression that depends on the query's step or range.
    pub offset_expr: Option<DurationExpr>,
    /// The `@` modifier.
    pub at: Option<At>,
}

/// How a range selector treats the ends of its window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extended {
    /// Plain.
    #[default]
    None,
    /// `anchored`.
    Anchored,
    /// `smoothed`.
    Smoothed,
}

/// `name{matchers}` with modifiers.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The metric name as written before the braces, or as a quoted name inside them; empty when neither. A matcher
    /// for it is among `matchers` too.
    pub name: String,
    /// All matchers, in the order written, the name's last.
    pub matchers: Vec<Matcher>,
    /// `offset` and `@`.
    pub modifiers: Modifiers,
    /// `anchored`, `smoothed`.
    pub extended: Extended,
}

/// A selector with a range.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSelector {
    /// The selector; its modifiers are those written after the brackets.
    pub selector: Selector,
    /// The span of the selector without range and modifiers.
    pub selector_span: Span,
    /// Range in ms. Meaningless while `range_expr` is set and not yet resolved.
    pub range_ms: i64,
    /// A range given by an expression.
    pub range_expr: Option<DurationExpr>,
}

/// `expr[range:step]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Subquery {
    /// The inner expression.
    pub expr: Expr,
    /// Range in ms, as in [`MatrixSelector`].
    pub range_ms: i64,
    /// A range given by an expression.
    pub range_expr: Option<DurationExpr>,
    /// Step in ms; 0 = the default of the server.
    pub step_ms: i64,
    /// A step given by an expression.
    pub step_expr: Option<DurationExpr>,
    /// `offset` and `@`.
    pub modifiers: Modifiers,
}

/// A duration expression that depends on the query's step or range, or that is more than one literal.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    /// What it is.
    pub kind: DurationKind,
    /// Where it stands; messages of failed evaluation name it.
    pub span: Span,
}

/// The kinds of duration expression; all values are seconds.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationKind {
    /// A literal, seconds; the flag says that it was written as a duration.
    Number(f64, bool),
    /// `step()`.
    Step,
    /// `range()`.
    Range,
    /// `-x` (`true`) or `+x`.
    Unary(bool, Box<DurationExpr>),
    /// `x op y`.
    Binary(DurationOp, Box<DurationExpr>, Box<DurationExpr>),
    /// `(x)`.
    Paren(Box<DurationExpr>),
}

/// Operators of duration expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `min_of(x, y)`
    MinOf,
    /// `max_of(x, y)`
    MaxOf,
}

/// A function call.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function's name; checked to exist with these argument types.
    pub function: &'static crate::functions::Function,
    /// The arguments as written.
    pub args: Vec<Expr>,
}

/// Aggregation operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateOp {
    /// `sum`
    Sum,
    /// `avg`
    Avg,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `count`
    Count,
    /// `group`
    Group,
    /// `stddev`
    Stddev,
    /// `stdvar`
    Stdvar,
    /// `topk`
    Topk,
    /// `bottomk`
    Bottomk,
    /// `quantile`
    Quantile,
    /// `count_values`
    CountValues,
    /// `limitk`
    Limitk,
    /// `limit_ratio`
    LimitRatio,
}

/// An aggregation.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The operator.
    pub op: AggregateOp,
    /// What is aggregated.
    pub expr: Expr,
    /// The parameter of `topk` and others.
    pub param: Option<Expr>,
    /// The labels of `by` or `without`, as written.
    pub grouping: Vec<String>,
    /// `without` instead of `by`.
    pub without: bool,
}

/// Binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
    /// `%`
    Mod,
    /// `^`
    Pow,
    /// `atan2`
    Atan2,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `>`
    Gt,
    /// `<`
    Lt,
    /// `>=`
    Ge,
    /// `<=`
    Le,
    /// `and`
    And,
    /// `or`
    Or,
    /// `unless`
    Unless,
    /// `</`: trim a histogram's upper part
    TrimUpper,
    /// `>/`: trim a histogram's lower part
    TrimLower,
}

/// How many series of each side may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cardinality {
    /// One to one.
    OneToOne,
    /// `group_left`.
    ManyToOne,
    /// `group_right`.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How series of two vectors are matched.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// Cardinality.
    pub cardinality: Cardinality,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// `on` instead of `ignoring`.
    pub on: bool,
    /// Extra labels of `group_left` / `group_right`.
    pub include: Vec<String>,
    /// `fill` / `fill_left`.
    pub fill_left: Option<f64>,
    /// `fill` / `fill_right`.
    pub fill_right: Option<f64>,
}

/// A binary operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The operator.
    pub op: BinaryOp,
    /// Left side.
    pub lhs: Expr,
    /// Right side.
    pub rhs: Expr,
    /// Set when both sides are vectors.
    pub matching: Option<VectorMatching>,
    /// `bool`.
    pub return_bool: bool,
}
