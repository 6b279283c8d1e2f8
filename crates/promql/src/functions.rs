//! The table of functions: names, argument types, result types, which are experimental.

use crate::ast::ValueType;

/// A function's signature.
#[derive(Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Types of its arguments.
    pub args: &'static [ValueType],
    /// 0: all arguments needed; n > 0: the last may repeat up to n times or be left out; −1: any number.
    pub variadic: i32,
    /// What it returns.
    pub returns: ValueType,
    /// Needs the feature `promql-experimental-functions`.
    pub experimental: bool,
}
