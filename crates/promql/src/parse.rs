//! Tokens to a tree: the entrances, their options and limits, and what all parts of the parser share.
//!
//! The parser is written by hand, precedence climbing over one token of look-ahead; the language is that of
//! Prometheus 3.16 (`promql/parser/generated_parser.y`), including where its grammar generator resolved
//! ambiguities. `expr.rs` holds operators and primaries, `selector.rs` matchers and grouping labels,
//! `modifier.rs` what follows a selector, `duration.rs` duration expressions. The first syntax error ends the
//! parse; findings that leave the tree whole are collected.
//!
//! Not here: types (`check.rs`), the values of series descriptions (`series.rs`).

mod duration;
mod expr;
mod modifier;
mod selector;

use model::{Labels, Matcher, number};

use crate::ast::{Expr, Span};
use crate::error::{Findings, ParseErrors};
use crate::lex::Lexer;
use crate::quote::quote;
use crate::token::{Kind, Token};

/// What the parser accepts beyond the stable language, and how much of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParseOptions {
    /// Experimental functions and aggregations (feature `promql-experimental-functions`).
    pub experimental_functions: bool,
    /// `fill`, `fill_left`, `fill_right` (feature `promql-binop-fill-modifiers`).
    pub fill_modifiers: bool,
    /// Unicode letters and dots in unquoted names (feature `promql-unquoted-utf8-names`).
    pub unquoted_utf8_names: bool,
    /// Bounds on size and shape.
    pub limits: Limits,
}

impl ParseOptions {
    /// Everything that can be switched on, within the default limits.
    pub const ALL: Self = Self {
        experimental_functions: true,
        fill_modifiers: true,
        unquoted_utf8_names: true,
        limits: Limits::DEFAULT,
    };
}

/// Bounds on one text. A tree is never higher than `max_depth` + `max_operators`, so that recursion over it is
/// bounded. Messages name the flag that sets the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text (`--query.max-length`).
    pub max_length: usize,
    /// How deep parentheses, calls, aggregations, unary operators and `^` may nest (`--query.max-depth`).
    pub max_depth: usize,
    /// How many operators, subqueries and duration operators there may be (`--query.max-operators`).
    pub max_operators: usize,
}

impl Limits {
    /// 64 KiB of text, 200 levels, 1,000 operators.
    pub const DEFAULT: Self = Self { max_length: 64 << 10, max_depth: 200, max_operators: 1000 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The checked tree of `text`. Takes time and memory linear in the text.
pub fn parse(text: &str, options: &ParseOptions) -> Result<Expr, ParseErrors> {
    let mut parser = Parser::new(text, options);
    let expr = parser.start().and_then(|()| {
        if parser.token.kind == Kind::Eof {
            return parser.stop(Span::default(), "no expression found in input");
        }
        let expr = parser.expr(0)?;
        parser.expect_end()?;
        Ok(expr)
    });
    match expr {
        Ok(mut expr) if parser.findings.is_empty() => {
            crate::check::check(text, &mut expr, &mut parser.findings);
            parser.finish(Ok(expr))
        }
        other => parser.finish(other),
    }
}

/// The matchers of an instant vector selector without modifiers, as in `match[]`; the name's last. Whether one
/// of them refuses the empty string is for the caller to ask ([`Matcher::matches_empty`]).
pub fn parse_selector(text: &str, options: &ParseOptions) -> Result<Vec<Matcher>, ParseErrors> {
    let mut parser = Parser::new(text, options);
    let matchers = parser.start().and_then(|()| {
        let selector = parser.vector_selector()?;
        parser.expect_end()?;
        Ok(selector.0.matchers)
    });
    parser.finish(matchers)
}

/// The labels of a metric such as `up{job="a"}` or `{"a.b", "c.d"="e"}`.
pub fn parse_metric(text: &str, options: &ParseOptions) -> Result<Labels, ParseErrors> {
    let mut parser = Parser::new(text, options);
    let labels = parser.start().and_then(|()| {
        let labels = parser.metric()?;
        parser.expect_end()?;
        Ok(labels)
    });
    parser.finish(labels)
}

/// A syntax error has been recorded; nothing can be read after it.
#[derive(Debug)]
pub(crate) struct Stop;

pub(crate) type Parsed<T> = Result<T, Stop>;

/// What messages about an unexpected token add: where it is and what could stand there.
#[derive(Clone, Copy)]
pub(crate) struct Context {
    place: &'static str,
    expected: &'static str,
}

impl Context {
    const fn new(place: &'static str, expected: &'static str) -> Self {
        Self { place, expected }
    }
}

/// The state of one parse.
pub(crate) struct Parser<'a> {
    pub(crate) text: &'a str,
    options: &'a ParseOptions,
    lexer: Lexer<'a>,
    /// The token to look at next.
    token: Token,
    /// What is wrong where [`Kind::Error`] stands.
    lex_error: Option<String>,
    /// Where the last token taken ends.
    last_end: u32,
    pub(crate) findings: Findings,
    depth: usize,
    operators: usize,
    /// How many aggregations are open: upstream says "in aggregation" of whatever is wrong inside one.
    open_aggregations: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(text: &'a str, options: &'a ParseOptions) -> Self {
        Self {
            text,
            options,
            lexer: Lexer::new(text, options.unquoted_utf8_names),
            token: Token { kind: Kind::Eof, span: Span::default() },
            lex_error: None,
            last_end: 0,
            findings: Findings::default(),
            depth: 0,
            operators: 0,
            open_aggregations: 0,
        }
    }

    /// Checks the length and reads the first token.
    pub(crate) fn start(&mut self) -> Parsed<()> {
        let (length, limit) = (self.text.len(), self.options.limits.max_length.min(u32::MAX as usize));
        if length > limit {
            return self.stop(
                Span::default(),
                format!("the text has {length} bytes, the limit is {limit} (--query.max-length)"),
            );
        }
        self.advance().map(|_| ())
    }

    /// Gives `result` unless there are findings.
    pub(crate) fn finish<T>(self, result: Parsed<T>) -> Result<T, ParseErrors> {
        match result {
            Ok(value) if self.findings.is_empty() => Ok(value),
            _ => Err(self.findings.into_errors(self.text)),
        }
    }

    /// Takes the token to look at and reads the next.
    fn advance(&mut self) -> Parsed<Token> {
        let taken = self.token;
        self.last_end = taken.span.end;
        self.token = self.lexer.next_token().unwrap_or_else(|(span, message)| {
            // Reported when it is looked at: what is wrong with the tokens before it comes first.
            self.lex_error = Some(message);
            Token { kind: Kind::Error, span }
        });
        Ok(taken)
    }

    /// Takes the next token when it is of `kind`.
    fn accept(&mut self, kind: Kind) -> Parsed<bool> {
        let found = self.token.kind == kind;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    /// Takes the next token, which must be of `kind`.
    fn expect(&mut self, kind: Kind, context: Option<Context>) -> Parsed<Token> {
        if self.token.kind == kind { self.advance() } else { self.unexpected(context) }
    }

    fn expect_end(&mut self) -> Parsed<()> {
        if self.token.kind == Kind::Eof { Ok(()) } else { self.unexpected(None) }
    }

    fn slice(&self, span: Span) -> &'a str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// Records that the next token cannot stand here.
    fn unexpected<T>(&mut self, context: Option<Context>) -> Parsed<T> {
        if let Some(message) = self.lex_error.take() {
            return self.stop(self.token.span, message);
        }
        let mut message = format!("unexpected {}", self.token.describe(self.slice(self.token.span)));
        match context {
            Some(Context { place, expected }) => {
                message.push_str(&format!(" in {place}, expected {expected}"));
            }
            None if self.open_aggregations > 0 => message.push_str(" in aggregation"),
            None => {}
        }
        self.stop(self.token.span, message)
    }

    fn stop<T>(&mut self, span: Span, message: impl Into<String>) -> Parsed<T> {
        self.findings.push(span, message);
        Err(Stop)
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let limit = self.options.limits.max_depth;
        if self.depth >= limit {
            return self.stop(
                self.token.span,
                format!("the expression nests deeper than the limit of {limit} levels (--query.max-depth)"),
            );
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Counts an operator that stands at `span`.
    fn count_operator(&mut self, span: Span) -> Parsed<()> {
        let limit = self.options.limits.max_operators;
        self.operators += 1;
        if self.operators > limit {
            return self.stop(
                span,
                format!(
                    "the expression has more operators than the limit of {limit} (--query.max-operators)"
                ),
            );
        }
        Ok(())
    }

    /// The value of a number or duration token, in seconds, and whether it was written as a duration.
    fn number_value(&mut self, token: Token) -> (f64, bool) {
        let text = self.slice(token.span);
        if token.kind == Kind::Duration {
            let ms = model::time::parse_duration(text).unwrap_or_else(|error| {
                self.findings.push(token.span, error.to_string());
                0
            });
            return (seconds_of_ms(ms), true);
        }
        let value = parse_number(text).unwrap_or_else(|error| {
            let message =
                format!("error parsing number: strconv.ParseFloat: parsing {}: {error}", quote(text));
            self.findings.push(token.span, message);
            0.0
        });
        (value, false)
    }

    /// The text that a string token means; a finding when it is not UTF-8.
    fn string_value(&mut self, token: Token) -> String {
        let literal = self.slice(token.span);
        String::from_utf8(crate::quote::unquote(literal)).unwrap_or_else(|error| {
            let shown = crate::quote::quote_bytes(error.as_bytes());
            self.findings.push(token.span, format!("{shown} is not valid UTF-8"));
            String::new()
        })
    }
}

/// A number as PromQL writes it: whole ones in any of Go's bases, else a float.
pub(crate) fn parse_number(text: &str) -> Result<f64, number::NumberError> {
    match number::parse_int_auto(text) {
        Some(whole) => Ok(whole as f64),
        None => number::parse_float(text),
    }
}

/// As Go's `Duration.Seconds`: whole and fractional part converted apart.
fn seconds_of_ms(ms: i64) -> f64 {
    (ms / 1000) as f64 + ((ms % 1000) * 1_000_000) as f64 / 1e9
}
