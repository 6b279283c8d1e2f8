//! A parser of Go's regular expressions (`regexp/syntax` with the flags Perl and DotNL): what it accepts, what
//! it means, and its error texts.

use super::{RegexError, unicode};

/// How deep groups may nest. Go allows 1,000 levels; ours keeps recursion over the tree shallow.
pub(super) const MAX_DEPTH: usize = 250;
/// How often a repetition may repeat, nested ones multiplied.
const MAX_REPEAT: u32 = 1000;
/// How many classes by Unicode name, or in any case of letters, an expression may have: each stands for hundreds
/// of ranges, which the compiler's own limit does not count.
const MAX_LARGE_CLASSES: usize = 200;

/// A tree of one expression.
#[derive(Debug)]
pub(super) enum Node {
    /// Matches the empty text.
    Empty,
    /// One character, in any case of letters when `fold`.
    Literal { c: char, fold: bool },
    /// One character of a class.
    Class { items: Vec<ClassItem>, negated: bool, fold: bool },
    /// `.`; also a newline when `newline`.
    Any { newline: bool },
    /// A place between characters.
    Assertion(Assertion),
    /// A group that captures, perhaps by name.
    Capture { inner: Box<Node>, name: Option<String> },
    /// One after another.
    Concat(Vec<Node>),
    /// The first that matches.
    Alternate(Vec<Node>),
    /// From `min` to `max` times.
    Repeat { inner: Box<Node>, min: u32, max: Option<u32>, greedy: bool },
}

/// A part of a class.
#[derive(Clone, Debug)]
pub(super) enum ClassItem {
    /// From–to, as code points (surrogates included, which no text has).
    Range(u32, u32),
    /// ASCII ranges, perhaps negated: `\d`, `[:alpha:]`.
    Ascii { ranges: &'static [(u8, u8)], negated: bool },
    /// `\p{name}`.
    Unicode { name: String, negated: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Assertion {
    BeginText,
    EndText,
    BeginLine,
    EndLine,
    WordBoundary,
    NoWordBoundary,
}

#[derive(Clone, Copy)]
struct Flags {
    fold: bool,
    multi_line: bool,
    dot_newline: bool,
    ungreedy: bool,
}

/// A group that is still open.
struct Open {
    /// Flags to restore when it closes.
    flags: Flags,
    /// `Some(name)` when it captures.
    capture: Option<Option<String>>,
    branches: Vec<Node>,
    branch: Vec<Node>,
    /// The largest product of repetition counts inside.
    weight: u32,
    /// That of the last item of the branch.
    last_weight: u32,
}

impl Open {
    fn new(flags: Flags, capture: Option<Option<String>>) -> Self {
        Self { flags, capture, branches: Vec::new(), branch: Vec::new(), weight: 1, last_weight: 1 }
    }

    fn push(&mut self, node: Node, weight: u32) {
        self.branch.push(node);
        self.last_weight = weight;
        self.weight = self.weight.max(weight);
    }

    fn end_branch(&mut self) {
        let branch = std::mem::take(&mut self.branch);
        self.branches.push(concat(branch));
    }

    fn finish(mut self) -> (Node, u32) {
        self.end_branch();
        let inner = match self.branches.len() {
            1 => self.branches.pop().unwrap_or(Node::Empty),
            _ => Node::Alternate(self.branches),
        };
        let node = match self.capture {
            Some(name) => Node::Capture { inner: Box::new(inner), name },
            None => inner,
        };
        (node, self.weight)
    }
}

fn concat(mut nodes: Vec<Node>) -> Node {
    match nodes.len() {
        0 => Node::Empty,
        1 => nodes.pop().unwrap_or(Node::Empty),
        _ => Node::Concat(nodes),
    }
}

struct Parser<'a> {
    pattern: &'a str,
    at: usize,
    flags: Flags,
    open: Vec<Open>,
    current: Open,
    large_classes: usize,
}

/// The tree of `pattern`.
pub(super) fn parse(pattern: &str) -> Result<Node, RegexError> {
    let flags = Flags { fold: false, multi_line: false, dot_newline: true, ungreedy: false };
    let mut parser =
        Parser { pattern, at: 0, flags, open: Vec::new(), current: Open::new(flags, None), large_classes: 0 };
    // Where the repetition operator before begins, when there is one right before.
    let mut last_repeat = None;
    while let Some(c) = parser.peek() {
        let start = parser.at;
        let mut repeat = None;
        match c {
            '(' if parser.rest().starts_with("(?") => parser.flags_or_group()?,
            '(' => {
                parser.at += 1;
                parser.open_group(Some(None))?;
            }
            ')' => parser.close_group()?,
            '|' => {
                parser.at += 1;
                parser.current.end_branch();
            }
            '^' => {
                parser.at += 1;
                let multi = parser.flags.multi_line;
                parser.assertion(if multi { Assertion::BeginLine } else { Assertion::BeginText });
            }
            '$' => {
                parser.at += 1;
                let multi = parser.flags.multi_line;
                parser.assertion(if multi { Assertion::EndLine } else { Assertion::EndText });
            }
            '.' => {
                parser.at += 1;
                let newline = parser.flags.dot_newline;
                parser.current.push(Node::Any { newline }, 1);
            }
            '[' => parser.class()?,
            '*' | '+' | '?' => {
                parser.at += 1;
                let (min, max) = match c {
                    '*' => (0, None),
                    '+' => (1, None),
                    _ => (0, Some(1)),
                };
                parser.repeat(start, last_repeat, min, max)?;
                repeat = Some(start);
            }
            '{' => match parser.counts() {
                None => {
                    parser.at += 1;
                    parser.literal('{');
                }
                Some((min, max)) => {
                    let valid = min <= MAX_REPEAT && max.is_none_or(|max| max <= MAX_REPEAT && min <= max);
                    if !valid {
                        return Err(RegexError::new("invalid repeat count", parser.since(start)));
                    }
                    parser.repeat(start, last_repeat, min, max)?;
                    repeat = Some(start);
                }
            },
            '\\' => parser.backslash()?,
            c => {
                parser.at += c.len_utf8();
                parser.literal(c);
            }
        }
        last_repeat = repeat;
    }
    if !parser.open.is_empty() {
        return Err(RegexError::new("missing closing )", pattern));
    }
    Ok(parser.current.finish().0)
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.pattern[self.at..]
    }

    fn since(&self, start: usize) -> &'a str {
        &self.pattern[start..self.at]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    fn literal(&mut self, c: char) {
        let fold = self.flags.fold;
        self.current.push(Node::Literal { c, fold }, 1);
    }

    /// A character by its code point, which may be none that text can have.
    fn code(&mut self, code: u32) {
        match char::from_u32(code) {
            Some(c) => self.literal(c),
            None => {
                let items = vec![ClassItem::Range(code, code)];
                self.current.push(Node::Class { items, negated: false, fold: false }, 1);
            }
        }
    }

    fn assertion(&mut self, assertion: Assertion) {
        self.current.push(Node::Assertion(assertion), 1);
    }

    fn open_group(&mut self, capture: Option<Option<String>>) -> Result<(), RegexError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(RegexError::new("expression nests too deeply", self.pattern));
        }
        let group = Open::new(self.flags, capture);
        self.open.push(std::mem::replace(&mut self.current, group));
        Ok(())
    }

    fn close_group(&mut self) -> Result<(), RegexError> {
        let Some(outer) = self.open.pop() else {
            return Err(RegexError::new("unexpected )", self.pattern));
        };
        self.at += 1;
        let group = std::mem::replace(&mut self.current, outer);
        self.flags = group.flags;
        let (node, weight) = group.finish();
        self.current.push(node, weight);
        Ok(())
    }

    /// After `(?`: a name, or flags with or without a group.
    fn flags_or_group(&mut self) -> Result<(), RegexError> {
        let start = self.at;
        let text = self.rest();
        let name_at = match text.as_bytes() {
            [_, _, b'P', b'<', _, ..] => Some(4),
            [_, _, b'<', _, ..] => Some(3),
            _ => None,
        };
        if let Some(name_at) = name_at {
            let end = text.find('>').ok_or_else(|| RegexError::new("invalid named capture", text))?;
            let name = text.get(name_at..end).unwrap_or("");
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(RegexError::new("invalid named capture", &text[..=end]));
            }
            self.at += end + 1;
            return self.open_group(Some(Some(name.to_owned())));
        }
        self.at += 2;
        let mut flags = self.flags;
        let (mut on, mut seen) = (true, false);
        while let Some(c) = self.bump() {
            match c {
                'i' => flags.fold = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.ungreedy = on,
                '-' if on => {
                    (on, seen) = (false, false);
                    continue;
                }
                ':' | ')' if on || seen => {
                    if c == ':' {
                        self.open_group(None)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            seen = true;
        }
        Err(RegexError::new("invalid or unsupported Perl syntax", self.since(start)))
    }

    /// The operator begins at `start` and has been read but for a `?` after it.
    fn repeat(
        &mut self,
        start: usize,
        last: Option<usize>,
        min: u32,
        max: Option<u32>,
    ) -> Result<(), RegexError> {
        let greedy = self.accept("?") == self.flags.ungreedy;
        if let Some(last) = last {
            return Err(RegexError::new("invalid nested repetition operator", self.since(last)));
        }
        let missing = RegexError::new("missing argument to repetition operator", self.since(start));
        let inner = Box::new(self.current.branch.pop().ok_or(missing)?);
        let counted = self.pattern.as_bytes()[start] == b'{' && (min >= 2 || max.is_some_and(|max| max >= 2));
        let factor = match max {
            _ if self.pattern.as_bytes()[start] != b'{' => 1,
            Some(max) => max.max(1),
            None => min.max(1),
        };
        let weight = self.current.last_weight.saturating_mul(factor);
        if counted && weight > MAX_REPEAT {
            return Err(RegexError::new("invalid repeat count", self.since(start)));
        }
        self.current.push(Node::Repeat { inner, min, max, greedy }, weight);
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; nothing is read when it is none of them.
    fn counts(&mut self) -> Option<(u32, Option<u32>)> {
        let body = &self.rest()[1..];
        let (min, rest) = count(body)?;
        let (max, rest) = match rest.strip_prefix(',') {
            None => (Some(min), rest),
            Some(rest) if rest.starts_with('}') => (None, rest),
            Some(rest) => count(rest).map(|(max, rest)| (Some(max), rest))?,
        };
        let rest = rest.strip_prefix('}')?;
        self.at = self.pattern.len() - rest.len();
        Some((min, max))
    }

    fn backslash(&mut self) -> Result<(), RegexError> {
        let assertion = match self.rest().as_bytes().get(1) {
            Some(b'A') => Some(Assertion::BeginText),
            Some(b'z') => Some(Assertion::EndText),
            Some(b'b') => Some(Assertion::WordBoundary),
            Some(b'B') => Some(Assertion::NoWordBoundary),
            Some(b'C') => return Err(RegexError::new("invalid escape sequence", &self.rest()[..2])),
            Some(b'Q') => {
                let body = &self.rest()[2..];
                let (literal, length) = match body.find("\\E") {
                    Some(end) => (&body[..end], end + 2),
                    None => (body, body.len()),
                };
                literal.chars().for_each(|c| self.literal(c));
                self.at += 2 + length;
                return Ok(());
            }
            _ => None,
        };
        if let Some(assertion) = assertion {
            self.at += 2;
            self.assertion(assertion);
            return Ok(());
        }
        if let Some(item) = self.class_escape()? {
            if self.flags.fold {
                self.large_class()?;
            }
            let node = Node::Class { items: vec![item], negated: false, fold: self.flags.fold };
            self.current.push(node, 1);
            return Ok(());
        }
        let code = self.escape()?;
        self.code(code);
        Ok(())
    }

    /// `\d`, `\p{…}` and their like, inside or outside of brackets.
    fn class_escape(&mut self) -> Result<Option<ClassItem>, RegexError> {
        let [b'\\', letter, ..] = self.rest().as_bytes() else { return Ok(None) };
        let (ranges, negated): (&[(u8, u8)], bool) = match letter {
            b'd' | b'D' => (&[(b'0', b'9')], *letter == b'D'),
            b's' | b'S' => (&[(b'\t', b'\n'), (12, b'\r'), (b' ', b' ')], *letter == b'S'),
            b'w' | b'W' => (WORD, *letter == b'W'),
            b'p' | b'P' => return self.unicode_class(*letter == b'P').map(Some),
            _ => return Ok(None),
        };
        self.at += 2;
        Ok(Some(ClassItem::Ascii { ranges, negated }))
    }

    fn large_class(&mut self) -> Result<(), RegexError> {
        self.large_classes += 1;
        if self.large_classes > MAX_LARGE_CLASSES {
            return Err(RegexError::new("expression too large", self.pattern));
        }
        Ok(())
    }

    fn unicode_class(&mut self, mut negated: bool) -> Result<ClassItem, RegexError> {
        self.large_class()?;
        let start = self.at;
        self.at += 2;
        let fail = |part: &str| Err(RegexError::new("invalid character class range", part));
        let mut name = match self.bump() {
            None => return fail(self.since(start)),
            Some('{') => {
                let Some(end) = self.rest().find('}') else { return fail(&self.pattern[start..]) };
                let name = &self.rest()[..end];
                self.at += end + 1;
                name
            }
            Some(_) => &self.pattern[start + 2..self.at],
        };
        if let Some(plain) = name.strip_prefix('^') {
            (name, negated) = (plain, !negated);
        }
        if !unicode::is_known(name) {
            return fail(self.since(start));
        }
        Ok(ClassItem::Unicode { name: name.to_owned(), negated })
    }

    /// The code point of an escape sequence.
    fn escape(&mut self) -> Result<u32, RegexError> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.bump() else {
            return Err(RegexError::new("trailing backslash at end of expression", ""));
        };
        let octal =
            |b: Option<&u8>| b.copied().filter(|b| (b'0'..=b'7').contains(b)).map(|b| u32::from(b - b'0'));
        let code = match c {
            '0'..='7' if c == '0' || octal(self.rest().as_bytes().first()).is_some() => {
                let mut code = u32::from(c) - u32::from('0');
                for _ in 0..2 {
                    let Some(digit) = octal(self.rest().as_bytes().first()) else { break };
                    code = code * 8 + digit;
                    self.at += 1;
                }
                Some(code)
            }
            'x' => self.hex_escape(),
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        code.ok_or_else(|| RegexError::new("invalid escape sequence", self.since(start)))
    }

    /// After `\x`: two hexadecimal digits, or any number of them in braces.
    fn hex_escape(&mut self) -> Option<u32> {
        if self.accept("{") {
            let mut code = 0u32;
            let mut seen = false;
            loop {
                match self.bump()? {
                    '}' => return Some(code).filter(|_| seen),
                    c => code = code * 16 + c.to_digit(16)?,
                }
                seen = true;
                if code > u32::from(char::MAX) {
                    return None;
                }
            }
        }
        let (first, second) = (self.bump()?, self.bump()?);
        Some(first.to_digit(16)? * 16 + second.to_digit(16)?)
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), RegexError> {
        let start = self.at;
        self.at += 1;
        let negated = self.accept("^");
        let mut items = Vec::new();
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            if let Some(item) = self.posix_class()? {
                items.push(item);
            } else if let Some(item) = self.class_escape()? {
                items.push(item);
            } else {
                let range_start = self.at;
                let low = self.class_char(start)?;
                let mut high = low;
                let rest = self.rest().as_bytes();
                if rest.len() >= 2 && rest[0] == b'-' && rest[1] != b']' {
                    self.at += 1;
                    high = self.class_char(start)?;
                    if high < low {
                        return Err(RegexError::new(
                            "invalid character class range",
                            self.since(range_start),
                        ));
                    }
                }
                items.push(ClassItem::Range(low, high));
            }
        }
        self.at += 1;
        let fold = self.flags.fold;
        if fold {
            self.large_class()?;
        }
        self.current.push(Node::Class { items, negated, fold }, 1);
        Ok(())
    }

    fn class_char(&mut self, class_start: usize) -> Result<u32, RegexError> {
        match self.peek() {
            None => Err(RegexError::new("missing closing ]", &self.pattern[class_start..])),
            Some('\\') => self.escape(),
            Some(c) => {
                self.at += c.len_utf8();
                Ok(u32::from(c))
            }
        }
    }

    /// `[:name:]`
    fn posix_class(&mut self) -> Result<Option<ClassItem>, RegexError> {
        let rest = self.rest();
        let Some(end) = rest.strip_prefix("[:").and_then(|body| body.find(":]")) else { return Ok(None) };
        let name = &rest[2..2 + end];
        let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        let ranges: &[(u8, u8)] = match name {
            "alnum" => &[(b'0', b'9'), (b'A', b'Z'), (b'a', b'z')],
            "alpha" => &[(b'A', b'Z'), (b'a', b'z')],
            "ascii" => &[(0, 0x7f)],
            "blank" => &[(b'\t', b'\t'), (b' ', b' ')],
            "cntrl" => &[(0, 0x1f), (0x7f, 0x7f)],
            "digit" => &[(b'0', b'9')],
            "graph" => &[(b'!', b'~')],
            "lower" => &[(b'a', b'z')],
            "print" => &[(b' ', b'~')],
            "punct" => &[(b'!', b'/'), (b':', b'@'), (b'[', b'`'), (b'{', b'~')],
            "space" => &[(b'\t', b'\r'), (b' ', b' ')],
            "upper" => &[(b'A', b'Z')],
            "word" => WORD,
            "xdigit" => &[(b'0', b'9'), (b'A', b'F'), (b'a', b'f')],
            _ => return Err(RegexError::new("invalid character class range", &rest[..end + 4])),
        };
        self.at += end + 4;
        Ok(Some(ClassItem::Ascii { ranges, negated }))
    }
}

const WORD: &[(u8, u8)] = &[(b'0', b'9'), (b'A', b'Z'), (b'_', b'_'), (b'a', b'z')];

/// A whole number without leading zeros, and what follows it; too large ones become [`u32::MAX`].
fn count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 1 && text.starts_with('0') {
        return None;
    }
    Some((text[..digits].parse().unwrap_or(u32::MAX), &text[digits..]))
}
