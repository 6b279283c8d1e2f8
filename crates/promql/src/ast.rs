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
    /// The metric name as written before the braces, else empty (a quoted name inside them is only a matcher, as
    /// upstream has it). A matcher for it is the last of `matchers`.
    pub name: String,
    /// All matchers, in the order written.
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

impl ValueType {
    /// The name that the HTTP API uses: `vector`, `matrix`, `scalar`, `string`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::String => "string",
            Self::Vector => "vector",
            Self::Matrix => "matrix",
        }
    }

    /// The name that documentation and messages use: `instant vector`, `range vector`, `scalar`, `string`.
    pub fn documented(self) -> &'static str {
        match self {
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            other => other.as_str(),
        }
    }
}

impl AggregateOp {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Sum,
        Self::Avg,
        Self::Min,
        Self::Max,
        Self::Count,
        Self::Group,
        Self::Stddev,
        Self::Stdvar,
        Self::Topk,
        Self::Bottomk,
        Self::Quantile,
        Self::CountValues,
        Self::Limitk,
        Self::LimitRatio,
    ];

    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Min => "min",
            Self::Max => "max",
            Self::Count => "count",
            Self::Group => "group",
            Self::Stddev => "stddev",
            Self::Stdvar => "stdvar",
            Self::Topk => "topk",
            Self::Bottomk => "bottomk",
            Self::Quantile => "quantile",
            Self::CountValues => "count_values",
            Self::Limitk => "limitk",
            Self::LimitRatio => "limit_ratio",
        }
    }

    /// Whether it takes a parameter before the vector.
    pub fn has_param(self) -> bool {
        matches!(
            self,
            Self::Topk | Self::Bottomk | Self::Quantile | Self::CountValues | Self::Limitk | Self::LimitRatio
        )
    }

    /// Whether it needs the feature `promql-experimental-functions`.
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::Limitk | Self::LimitRatio)
    }
}

impl BinaryOp {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Add,
        Self::Sub,
        Self::Mul,
        Self::Div,
        Self::Mod,
        Self::Pow,
        Self::Atan2,
        Self::Eq,
        Self::Ne,
        Self::Gt,
        Self::Lt,
        Self::Ge,
        Self::Le,
        Self::And,
        Self::Or,
        Self::Unless,
        Self::TrimUpper,
        Self::TrimLower,
    ];

    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::Atan2 => "atan2",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Gt => ">",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Le => "<=",
            Self::And => "and",
            Self::Or => "or",
            Self::Unless => "unless",
            Self::TrimUpper => "</",
            Self::TrimLower => ">/",
        }
    }

    /// Whether it is one of `== != > < >= <=`.
    pub fn is_comparison(self) -> bool {
        matches!(self, Self::Eq | Self::Ne | Self::Gt | Self::Lt | Self::Ge | Self::Le)
    }

    /// Whether it is one of `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Unless)
    }
}

impl DurationOp {
    /// The operator as PromQL writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Pow => "^",
            Self::MinOf => "min_of",
            Self::MaxOf => "max_of",
        }
    }
}

impl VectorMatching {
    /// Whether a missing side is filled in.
    pub fn fills(&self) -> bool {
        self.fill_left.is_some() || self.fill_right.is_some()
    }
}

impl Expr {
    /// What it evaluates to.
    pub fn value_type(&self) -> ValueType {
        match &self.kind {
            ExprKind::Number { .. } => ValueType::Scalar,
            ExprKind::String(_) | ExprKind::Bytes(_) => ValueType::String,
            ExprKind::Selector(_) | ExprKind::Aggregate(_) => ValueType::Vector,
            ExprKind::Matrix(_) | ExprKind::Subquery(_) => ValueType::Matrix,
            ExprKind::Call(call) => call.function.returns,
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => inner.value_type(),
            ExprKind::Binary(binary) => {
                let both_scalar = binary.lhs.value_type() == ValueType::Scalar
                    && binary.rhs.value_type() == ValueType::Scalar;
                if both_scalar { ValueType::Scalar } else { ValueType::Vector }
            }
        }
    }

    /// The expressions directly inside, in upstream's order (an aggregation's parameter after what it
    /// aggregates). A range selector has none.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            ExprKind::Number { .. }
            | ExprKind::String(_)
            | ExprKind::Bytes(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => Vec::new(),
            ExprKind::Subquery(subquery) => vec![&subquery.expr],
            ExprKind::Call(call) => call.args.iter().collect(),
            ExprKind::Aggregate(aggregate) => {
                std::iter::once(&aggregate.expr).chain(&aggregate.param).collect()
            }
            ExprKind::Binary(binary) => vec![&binary.lhs, &binary.rhs],
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => vec![inner],
        }
    }

    /// As [`Expr::children`], to change them.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match &mut self.kind {
            ExprKind::Number { .. }
            | ExprKind::String(_)
            | ExprKind::Bytes(_)
            | ExprKind::Selector(_)
            | ExprKind::Matrix(_) => Vec::new(),
            ExprKind::Subquery(subquery) => vec![&mut subquery.expr],
            ExprKind::Call(call) => call.args.iter_mut().collect(),
            ExprKind::Aggregate(aggregate) => {
                std::iter::once(&mut aggregate.expr).chain(&mut aggregate.param).collect()
            }
            ExprKind::Binary(binary) => vec![&mut binary.lhs, &mut binary.rhs],
            ExprKind::Unary(_, inner) | ExprKind::Paren(inner) => vec![inner],
        }
    }

    /// The selectors in it, from left to right, with the range in ms of range selectors.
    pub fn selectors(&self) -> Vec<(&Selector, Option<i64>)> {
        let mut found = Vec::new();
        self.collect_selectors(&mut found);
        found
    }

    fn collect_selectors<'a>(&'a self, found: &mut Vec<(&'a Selector, Option<i64>)>) {
        match &self.kind {
            ExprKind::Selector(selector) => found.push((selector, None)),
            ExprKind::Matrix(matrix) => found.push((&matrix.selector, Some(matrix.range_ms))),
            _ => self.children().into_iter().for_each(|child| child.collect_selectors(found)),
        }
    }
}
