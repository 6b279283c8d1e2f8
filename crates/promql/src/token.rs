//! Tokens: kinds, keywords, and how messages name them.

use crate::ast::{AggregateOp, BinaryOp, Span};
use crate::quote::quote;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Eof,
    /// The text is no PromQL from here on.
    Error,
    Comma,
    Colon,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Identifier,
    /// An identifier with a colon in it: a name of a recording rule, never of a label or function.
    MetricIdentifier,
    Number,
    Duration,
    String,
    /// `=`
    Equal,
    /// `=~`
    EqualRegex,
    /// `!~`
    NotRegex,
    /// `@`
    At,
    /// A binary operator; `!=` is also a matcher's.
    Operator(BinaryOp),
    Aggregator(AggregateOp),
    Keyword(Keyword),
    /// Words that are functions, or parts of `@` and of duration expressions.
    Word(Word),
}

/// Keywords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
}

/// Words with a meaning only in some places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// A token and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) span: Span,
}

/// The keyword, operator or special number that `word` is, in any case of letters.
pub(crate) fn keyword(word: &str) -> Option<Kind> {
    let mut lower = [0u8; 12];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => Kind::Operator(BinaryOp::And),
        b"or" => Kind::Operator(BinaryOp::Or),
        b"unless" => Kind::Operator(BinaryOp::Unless),
        b"atan2" => Kind::Operator(BinaryOp::Atan2),
        b"sum" => Kind::Aggregator(AggregateOp::Sum),
        b"avg" => Kind::Aggregator(AggregateOp::Avg),
        b"count" => Kind::Aggregator(AggregateOp::Count),
        b"min" => Kind::Aggregator(AggregateOp::Min),
        b"max" => Kind::Aggregator(AggregateOp::Max),
        b"group" => Kind::Aggregator(AggregateOp::Group),
        b"stddev" => Kind::Aggregator(AggregateOp::Stddev),
        b"stdvar" => Kind::Aggregator(AggregateOp::Stdvar),
        b"topk" => Kind::Aggregator(AggregateOp::Topk),
        b"bottomk" => Kind::Aggregator(AggregateOp::Bottomk),
        b"count_values" => Kind::Aggregator(AggregateOp::CountValues),
        b"quantile" => Kind::Aggregator(AggregateOp::Quantile),
        b"limitk" => Kind::Aggregator(AggregateOp::Limitk),
        b"limit_ratio" => Kind::Aggregator(AggregateOp::LimitRatio),
        b"offset" => Kind::Keyword(Keyword::Offset),
        b"smoothed" => Kind::Keyword(Keyword::Smoothed),
        b"anchored" => Kind::Keyword(Keyword::Anchored),
        b"by" => Kind::Keyword(Keyword::By),
        b"without" => Kind::Keyword(Keyword::Without),
        b"on" => Kind::Keyword(Keyword::On),
        b"ignoring" => Kind::Keyword(Keyword::Ignoring),
        b"group_left" => Kind::Keyword(Keyword::GroupLeft),
        b"group_right" => Kind::Keyword(Keyword::GroupRight),
        b"fill" => Kind::Keyword(Keyword::Fill),
        b"fill_left" => Kind::Keyword(Keyword::FillLeft),
        b"fill_right" => Kind::Keyword(Keyword::FillRight),
        b"bool" => Kind::Keyword(Keyword::Bool),
        b"inf" | b"nan" => Kind::Number,
        _ => {
            return duration_word(word).or(match &*lower {
                b"start" => Some(Kind::Word(Word::Start)),
                b"end" => Some(Kind::Word(Word::End)),
                _ => None,
            });
        }
    })
}

/// The words that may stand in a duration expression, in any case of letters.
pub(crate) fn duration_word(word: &str) -> Option<Kind> {
    let words =
        [("step", Word::Step), ("range", Word::Range), ("max_of", Word::MaxOf), ("min_of", Word::MinOf)];
    words.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, kind)| Kind::Word(*kind))
}

impl Kind {
    /// Whether a metric may be called so without quotes.
    pub(crate) fn is_metric_name(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregator(_) | Self::Word(_) => true,
            Self::Operator(op) => matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless),
            Self::Keyword(keyword) => !matches!(
                keyword,
                Keyword::Bool | Keyword::GroupLeft | Keyword::GroupRight | Keyword::Ignoring | Keyword::On
            ),
            _ => false,
        }
    }

    /// Whether a label in `by`, `on` and the like may be called so without quotes.
    pub(crate) fn is_grouping_label(self) -> bool {
        match self {
            Self::Identifier | Self::MetricIdentifier | Self::Aggregator(_) | Self::Word(_) => true,
            Self::Operator(op) => {
                matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
            }
            Self::Keyword(keyword) => keyword != Keyword::Without,
            _ => false,
        }
    }

    /// Whether an expression can begin with it.
    pub(crate) fn starts_expression(self) -> bool {
        matches!(
            self,
            Self::LeftParen
                | Self::LeftBrace
                | Self::Number
                | Self::Duration
                | Self::String
                | Self::Operator(BinaryOp::Add | BinaryOp::Sub)
        ) || self.is_metric_name()
    }
}

impl Token {
    /// How messages name the token; `text` is what stands there.
    pub(crate) fn describe(&self, text: &str) -> String {
        match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quote(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            Kind::Number => format!("number {}", quote_short(text)),
            Kind::Duration => format!("duration {}", quote_short(text)),
            Kind::String => format!("string {}", quote_short(text)),
            Kind::Operator(_) | Kind::At | Kind::EqualRegex | Kind::NotRegex => format!("<op:{text}>"),
            Kind::Aggregator(_) => format!("<aggr:{text}>"),
            Kind::Keyword(_) => format!("<{text}>"),
            _ => quote_short(text),
        }
    }
}

/// Quoted, at most ten characters of it.
fn quote_short(text: &str) -> String {
    if text.len() <= 10 {
        return quote(text);
    }
    let cut = text.char_indices().nth(10).map_or(text.len(), |(at, _)| at);
    format!("{}...", quote(&text[..cut]))
}
