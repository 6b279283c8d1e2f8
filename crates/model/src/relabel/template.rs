//! Replacement templates with Go's `Regexp.Expand` rules: `$1`, `$name`, `${name}`, `$$`.
//!
//! Used by relabelling and by PromQL's `label_replace`. The source of the rules is Go's `regexp` package
//! (`extract` and `expand`).

use regex::Captures;

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Group(usize),
    Name(String),
}

/// A parsed replacement template. Any text is one: what does not form a variable stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let Some((name, after)) = variable(rest) else {
                literal.push('$');
                continue;
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(group_number(name).map_or_else(|| Piece::Name(name.to_owned()), Piece::Group));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Self { pieces }
    }

    /// Appends the template to `out` with its variables replaced by the groups of a match. Groups that do not
    /// exist or did not take part give nothing.
    pub fn expand(&self, captures: &Captures<'_>, out: &mut String) {
        for piece in &self.pieces {
            let text = match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Group(number) => captures.get(*number).map_or("", |m| m.as_str()),
                Piece::Name(name) => captures.name(name).map_or("", |m| m.as_str()),
            };
            out.push_str(text);
        }
    }

    /// The template's text when it has no variable.
    pub fn literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}

/// The variable's name at the start of `text` (which follows a `$`), and what comes after it.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inner, braced) = match text.strip_prefix('{') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let is_word = |c: char| c.is_alphabetic() || c.is_numeric() || c == '_';
    let end = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
    let (name, after) = inner.split_at(end);
    if name.is_empty() {
        return None;
    }
    match braced {
        true => after.strip_prefix('}').map(|after| (name, after)),
        false => Some((name, after)),
    }
}

/// The group that a purely decimal name without leading zeros means.
fn group_number(name: &str) -> Option<usize> {
    let leading_zero = name.len() > 1 && name.starts_with('0');
    if leading_zero || name.len() > 8 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, text: &str, template: &str, want: &str) {
        let regex = regex::Regex::new(pattern).unwrap();
        let mut out = String::new();
        Template::parse(template).expand(&regex.captures(text).unwrap(), &mut out);
        assert_eq!(out, want, "{template:?} on {text:?}");
    }

    #[test]
    fn variables_expand_as_in_go() {
        check("(.*)-(.*)", "a-b", "$2/$1", "b/a");
        check("(.*)-(.*)", "a-b", "${1}x", "ax");
        check("(.*)-(.*)", "a-b", "$1x", "");
        check("(?P<left>.*)-(.*)", "a-b", "$left.${left}$right", "a.a");
        check("(.*)-(.*)", "a-b", "$0|$3|$01|$$1", "a-b|||$1");
        check("(.*)-(.*)", "a-b", "$ ${} ${1 $-", "$ ${} ${1 $-");
        check("(a)|(b)", "a", "<$2>", "<>");
        check("(.*)", "x", "100%$", "100%$");
    }

    #[test]
    fn literal_templates_are_known() {
        assert_eq!(Template::parse("plain").literal(), Some("plain"));
        assert_eq!(Template::parse("").literal(), Some(""));
        assert_eq!(Template::parse("a$$b").literal(), Some("a$b"));
        assert_eq!(Template::parse("a$1").literal(), None);
    }
}
