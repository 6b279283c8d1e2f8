//! Matchers in braces, label sets, and the label lists of `by`, `on` and the like.

use model::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use super::{Context, Parsed, Parser};
use crate::ast::{BinaryOp, Expr, ExprKind, Extended, Modifiers, Selector, Span};
use crate::quote::quote;
use crate::token::{Kind, Token};

const GROUPING: &str = "grouping opts";
const MATCHING: &str = "label matching";
const LABEL_SET: &str = "label set";

impl Parser<'_> {
    /// An instant vector selector, and where it stands.
    pub(super) fn vector_selector(&mut self) -> Parsed<(Selector, Span)> {
        let name = match self.token.kind {
            Kind::LeftBrace => None,
            kind if kind.is_metric_name() => Some(self.advance()?),
            _ => return self.unexpected(None),
        };
        self.selector(name)
    }

    /// A selector whose name has been read.
    pub(super) fn selector_after(&mut self, name: Option<Token>) -> Parsed<Expr> {
        let (selector, span) = self.selector(name)?;
        Ok(Expr { kind: ExprKind::Selector(Box::new(selector)), span })
    }

    fn selector(&mut self, name: Option<Token>) -> Parsed<(Selector, Span)> {
        let start = name.map_or(self.token.span.start, |n| n.span.start);
        let mut matchers = Vec::new();
        if self.accept(Kind::LeftBrace)? {
            self.matchers(&mut matchers)?;
        }
        let span = Span { start, end: self.last_end };
        let name = name.map_or(String::new(), |n| self.slice(n.span).to_owned());
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
        }
        Ok((Selector { name, matchers, modifiers: Modifiers::default(), extended: Extended::None }, span))
    }

    /// Matchers up to the closing brace; the opening one has been read.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<()> {
        while !self.accept(Kind::RightBrace)? {
            self.matcher(matchers)?;
            if !self.accept(Kind::Comma)? && self.token.kind != Kind::RightBrace {
                return self.unexpected(Some(Context::new(MATCHING, "\",\" or \"}\"")));
            }
        }
        Ok(())
    }

    fn matcher(&mut self, matchers: &mut Vec<Matcher>) -> Parsed<()> {
        let name = self.token;
        if !matches!(name.kind, Kind::Identifier | Kind::String) {
            return self.unexpected(Some(Context::new(MATCHING, "identifier or \"}\"")));
        }
        self.advance()?;
        let op = match self.token.kind {
            Kind::Equal => MatchOp::Equal,
            Kind::Operator(BinaryOp::Ne) => MatchOp::NotEqual,
            Kind::EqualRegex => MatchOp::Regex,
            Kind::NotRegex => MatchOp::NotRegex,
            _ if name.kind == Kind::String => {
                let value = self.string_value(name);
                matchers.push(Matcher::equal(METRIC_NAME, value));
                return Ok(());
            }
            _ => return self.unexpected(Some(Context::new(MATCHING, "label matching operator"))),
        };
        self.advance()?;
        if self.token.kind != Kind::String {
            return self.unexpected(Some(Context::new(MATCHING, "string")));
        }
        let value = self.token;
        let (label, text) = (self.name_value(name), self.string_value(value));
        match Matcher::new(label, op, text) {
            Ok(matcher) => matchers.push(matcher),
            Err(error) => {
                let span = Span { start: name.span.start, end: value.span.end };
                self.findings.push(span, error.to_string());
            }
        }
        self.advance()?;
        Ok(())
    }

    /// The name that an identifier or string is.
    fn name_value(&mut self, token: Token) -> String {
        match token.kind {
            Kind::String => self.string_value(token),
            _ => self.slice(token.span).to_owned(),
        }
    }

    /// Label names in parentheses.
    pub(super) fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        self.expect(Kind::LeftParen, Some(Context::new(GROUPING, "\"(\"")))?;
        let mut labels = Vec::new();
        if self.accept(Kind::RightParen)? {
            return Ok(labels);
        }
        loop {
            labels.push(self.grouping_label()?);
            if !self.accept(Kind::Comma)? && self.token.kind != Kind::RightParen {
                return self.unexpected(Some(Context::new(GROUPING, "\",\" or \")\"")));
            }
            if self.accept(Kind::RightParen)? {
                return Ok(labels);
            }
        }
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.token;
        let (label, valid) = if token.kind == Kind::String {
            let label = self.string_value(token);
            let valid = !label.is_empty();
            (label, valid)
        } else if token.kind.is_grouping_label() {
            // Without the feature upstream has always let colons pass here.
            let valid = !(self.options.unquoted_utf8_names && token.kind == Kind::MetricIdentifier);
            (self.slice(token.span).to_owned(), valid)
        } else {
            return self.unexpected(Some(Context::new(GROUPING, "label")));
        };
        if !valid {
            self.findings.push(token.span, format!("invalid label name for grouping: {}", quote(&label)));
        }
        self.advance()?;
        Ok(label)
    }

    /// A metric: a name, a label set, or both.
    pub(crate) fn metric(&mut self) -> Parsed<Labels> {
        let mut builder = LabelsBuilder::new();
        let start = self.token.span.start;
        let name = if self.token.kind.is_metric_name() { Some(self.advance()?) } else { None };
        if name.is_none() && !matches!(self.token.kind, Kind::LeftBrace | Kind::Eof) {
            return self.unexpected(None);
        }
        if self.accept(Kind::LeftBrace)? {
            self.label_set(&mut builder)?;
        }
        if let Some(name) = name {
            builder.set(METRIC_NAME, self.slice(name.span));
        }
        match builder.build() {
            Ok(labels) => Ok(labels),
            Err(error) => self.stop(Span { start, end: self.last_end }, error.to_string()),
        }
    }

    /// Labels up to the closing brace; the opening one has been read.
    fn label_set(&mut self, builder: &mut LabelsBuilder) -> Parsed<()> {
        while !self.accept(Kind::RightBrace)? {
            let name = self.token;
            if !matches!(name.kind, Kind::Identifier | Kind::String) {
                return self.unexpected(Some(Context::new(LABEL_SET, "identifier or \"}\"")));
            }
            self.advance()?;
            if self.accept(Kind::Equal)? {
                let value = self.token;
                if value.kind != Kind::String {
                    return self.unexpected(Some(Context::new(LABEL_SET, "string")));
                }
                let (label, text) = (self.name_value(name), self.string_value(value));
                if label.is_empty() {
                    return self.stop(name.span, "a label name is empty");
                }
                if builder.get(&label).is_some() {
                    return self.stop(name.span, format!("label name {} appears twice", quote(&label)));
                }
                builder.set(&label, &text);
                self.advance()?;
            } else if name.kind == Kind::String {
                let value = self.string_value(name);
                builder.set(METRIC_NAME, &value);
            } else {
                return self.unexpected(Some(Context::new(LABEL_SET, "\"=\"")));
            }
            if !self.accept(Kind::Comma)? && self.token.kind != Kind::RightBrace {
                return self.unexpected(Some(Context::new(LABEL_SET, "\",\" or \"}\"")));
            }
        }
        Ok(())
    }
}
