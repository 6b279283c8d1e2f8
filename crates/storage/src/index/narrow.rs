//! Which values a matcher's expression can match at all, read off its text: a set, a prefix, anything, or anything
//! but the empty string. Where the text is not plainly one of these the answer is the empty prefix, which is always
//! right; the expression itself decides then.

use model::{MatchOp, Matcher};

/// A bound on the values that the expression of a matcher (not its negation) matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Narrow {
    /// Exactly these.
    Set(Vec<String>),
    /// Only values that start so.
    Prefix(String),
    /// Every value, and the empty string.
    Anything,
    /// Every value, but not the empty string.
    Something,
}

/// The bound for `matcher`; an equality is a set of one.
pub(super) fn narrow(matcher: &Matcher) -> Narrow {
    let text = matcher.value();
    match matcher.op() {
        MatchOp::Equal | MatchOp::NotEqual if text.is_empty() => {
            // The values of series that have the label never are the empty string.
            Narrow::Set(Vec::new())
        }
        MatchOp::Equal | MatchOp::NotEqual => Narrow::Set(vec![text.to_owned()]),
        MatchOp::Regex | MatchOp::NotRegex => narrow_text(text),
    }
}

fn narrow_text(text: &str) -> Narrow {
    match text {
        ".*" | "^.*$" => return Narrow::Anything,
        ".+" | "^.+$" => return Narrow::Something,
        _ => {}
    }
    let is_meta = |c: char| r"\.+*?()|[]{}^$".contains(c);
    let inner = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).unwrap_or(text);
    if !inner.chars().any(|c| c != '|' && is_meta(c)) {
        return Narrow::Set(inner.split('|').map(str::to_owned).collect());
    }
    // An alternative anywhere could begin differently.
    if text.contains('|') {
        return Narrow::Prefix(String::new());
    }
    let mut prefix = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let literal = match c {
            '\\' => match rest.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => escaped,
                _ => break,
            },
            c if is_meta(c) => break,
            c => c,
        };
        // What may be repeated zero times is no part of the prefix.
        if rest.peek().is_some_and(|next| "*?{".contains(*next)) {
            break;
        }
        prefix.push(literal);
    }
    Narrow::Prefix(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &Narrow) {
        assert_eq!(narrow_text(text), *expected, "{text}");
    }

    #[test]
    fn expressions_narrow_to_sets_and_prefixes() {
        let set = |values: &[&str]| Narrow::Set(values.iter().map(|v| (*v).to_owned()).collect());
        let prefix = |p: &str| Narrow::Prefix(p.to_owned());
        check("abc", &set(&["abc"]));
        check("a|b|", &set(&["a", "b", ""]));
        check("(a|b)", &set(&["a", "b"]));
        check("", &set(&[""]));
        check("5..", &prefix("5"));
        check(r"10\.0\.0\.1:.*", &prefix("10.0.0.1:"));
        check("ab*", &prefix("a"));
        check("ab?c", &prefix("a"));
        check("ab{2}", &prefix("a"));
        check("ab+", &prefix("ab"));
        check("web-.*|api-.*", &prefix(""));
        check("web-(a|b)", &prefix(""));
        check("(?i)abc", &prefix(""));
        check(r"\d+", &prefix(""));
        check(".*", &Narrow::Anything);
        check(".+", &Narrow::Something);
        check("^abc", &prefix(""));
    }
}
