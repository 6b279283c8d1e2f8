//! PromQL: text ⇄ checked syntax tree, canonical printer, prettifier.
//!
//! A text goes through `lex.rs` (tokens), `parse.rs` and its folder (tree with spans), `check.rs` (types), and
//! back through `print.rs` (canonical text, the form of plan fragments) or `pretty.rs` (several lines).
//! `series.rs` reads the series descriptions of test scripts. Messages are worded as upstream words them.
//!
//! Not here: how anything is evaluated (`engine`) or distributed.

pub mod ast;
mod check;
pub mod duration;
pub mod error;
pub mod functions;
mod lex;
pub mod parse;
mod pretty;
mod print;
pub mod quote;
pub mod series;
mod token;

#[cfg(test)]
mod parse_test;
#[cfg(test)]
mod print_test;
#[cfg(test)]
mod series_test;

pub use ast::{Expr, ExprKind, Span, ValueType};
pub use error::{ParseError, ParseErrors};
pub use parse::{Limits, ParseOptions, parse, parse_metric, parse_selector};
pub use pretty::{prettify, prettify_with};
pub use print::{Style, print_with};
pub use series::{SeriesDescription, parse_series};
