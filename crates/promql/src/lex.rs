//! Text to tokens. What a character means depends on whether braces or brackets are open, as upstream has it
//! (`promql/parser/lex.go`), so the lexer keeps that state; comments and spaces are skipped.
//!
//! Not here: the values in series descriptions (`series.rs`).

use model::regex::is_letter;

use crate::ast::{BinaryOp, Span};
use crate::quote::{quote, quote_char};
use crate::token::{Keyword, Kind, Token, duration_word, keyword};

/// Where the text stops being PromQL, and why.
pub(crate) type LexError = (Span, String);

/// A lexer over one text.
pub(crate) struct Lexer<'a> {
    text: &'a str,
    pos: usize,
    /// Where the token being read begins.
    start: usize,
    /// In brackets, before the first number: only durations and their operators.
    duration_only: bool,
    /// Unicode letters and dots are parts of names.
    utf8_names: bool,
    paren_depth: u32,
    brace_open: bool,
    bracket_open: bool,
    got_colon: bool,
    got_duration: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, utf8_names: bool) -> Self {
        Self {
            text,
            pos: 0,
            start: 0,
            duration_only: false,
            utf8_names,
            paren_depth: 0,
            brace_open: false,
            bracket_open: false,
            got_colon: false,
            got_duration: false,
        }
    }

    /// The next token; at the end, [`Kind::Eof`] again and again.
    pub(crate) fn next_token(&mut self) -> Result<Token, LexError> {
        self.skip_blank();
        if self.brace_open {
            return self.in_braces();
        }
        if self.duration_only { self.in_brackets() } else { self.statement() }
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek_byte() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.pos += 1,
                // In brackets a comment may only follow a number; upstream's lexer has it so.
                Some(b'#') if !self.duration_only || self.brace_open => {
                    let rest = &self.text.as_bytes()[self.pos..];
                    self.pos += line_length(rest);
                }
                _ => break,
            }
        }
        self.start = self.pos;
    }

    fn peek_byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn peek(&self) -> Option<char> {
        self.text[self.pos..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.pos += c.len_utf8();
        Some(c)
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek_byte() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    fn token(&self, kind: Kind) -> Result<Token, LexError> {
        Ok(Token { kind, span: Span { start: self.start as u32, end: self.pos as u32 } })
    }

    fn fail<T>(&self, at: usize, message: String) -> Result<T, LexError> {
        Err((Span { start: at as u32, end: self.text.len() as u32 }, message))
    }

    fn statement(&mut self) -> Result<Token, LexError> {
        let Some(c) = self.bump() else {
            return match () {
                () if self.paren_depth != 0 => self.fail(self.start, "unclosed left parenthesis".into()),
                () if self.bracket_open => self.fail(self.start, "unclosed left bracket".into()),
                () => self.token(Kind::Eof),
            };
        };
        let kind = match c {
            ',' => Kind::Comma,
            '*' => Kind::Operator(BinaryOp::Mul),
            '/' => Kind::Operator(BinaryOp::Div),
            '%' => Kind::Operator(BinaryOp::Mod),
            '+' => Kind::Operator(BinaryOp::Add),
            '-' => Kind::Operator(BinaryOp::Sub),
            '^' => Kind::Operator(BinaryOp::Pow),
            '@' => Kind::At,
            '=' if self.accept(b'=') => Kind::Operator(BinaryOp::Eq),
            '=' if self.peek_byte() == Some(b'~') => {
                return self.fail(self.start, "unexpected character after '=': '~'".into());
            }
            '=' => Kind::Equal,
            '!' if self.accept(b'=') => Kind::Operator(BinaryOp::Ne),
            '!' => {
                return self.fail(
                    self.start,
                    format!("unexpected character after '!': {}", quote_next(self.peek())),
                );
            }
            '<' if self.accept(b'=') => Kind::Operator(BinaryOp::Le),
            '<' if self.accept(b'/') => Kind::Operator(BinaryOp::TrimUpper),
            '<' => Kind::Operator(BinaryOp::Lt),
            '>' if self.accept(b'=') => Kind::Operator(BinaryOp::Ge),
            '>' if self.accept(b'/') => Kind::Operator(BinaryOp::TrimLower),
            '>' => Kind::Operator(BinaryOp::Gt),
            '0'..='9' => return self.number_or_duration(),
            '.' if self.peek_byte().is_some_and(|b| b.is_ascii_digit()) => return self.number_or_duration(),
            '"' | '\'' | '`' => return self.string(c),
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.close_paren(),
            '{' => {
                self.brace_open = true;
                Kind::LeftBrace
            }
            '[' if self.bracket_open => return self.fail(self.start, "unexpected left bracket '['".into()),
            '[' => {
                self.bracket_open = true;
                // Whether there was a duration is not forgotten here, nor by upstream: what is said of a later `[:5m]`
                // depends on it.
                self.got_colon = false;
                self.duration_only = true;
                Kind::LeftBracket
            }
            ']' if !self.bracket_open => return self.fail(self.start, "unexpected right bracket ']'".into()),
            ']' => {
                self.bracket_open = false;
                Kind::RightBracket
            }
            _ if c == ':' || self.starts_name(c) => {
                return if self.bracket_open { self.word_in_brackets(c) } else { self.name_or_keyword() };
            }
            _ => return self.fail(self.start, format!("unexpected character: {}", quote_char(c))),
        };
        self.token(kind)
    }

    fn close_paren(&mut self) -> Result<Token, LexError> {
        match self.paren_depth.checked_sub(1) {
            Some(depth) => {
                self.paren_depth = depth;
                self.token(Kind::RightParen)
            }
            None => self.fail(self.pos, "unexpected right parenthesis ')'".into()),
        }
    }

    fn word_in_brackets(&mut self, first: char) -> Result<Token, LexError> {
        if first == ':' {
            if self.got_colon {
                return self.fail(self.start, "unexpected colon ':'".into());
            }
            self.got_colon = true;
            return self.token(Kind::Colon);
        }
        if matches!(first, 's' | 'r' | 'm' | 'S' | 'R' | 'M')
            && let Some(kind) = self.duration_word()
        {
            return self.token(kind);
        }
        self.fail(self.start, format!("unexpected character: {}, expected ':'", quote_char(first)))
    }

    fn duration_word(&mut self) -> Option<Kind> {
        while self.peek_byte().is_some_and(is_alpha) {
            self.pos += 1;
        }
        duration_word(&self.text[self.start..self.pos])
    }

    /// After `[`, until the first number: only what a duration expression may begin with.
    fn in_brackets(&mut self) -> Result<Token, LexError> {
        let Some(c) = self.bump() else {
            return self.fail(self.start, "unexpected end of input in duration expression".into());
        };
        let kind = match c {
            ']' => {
                self.bracket_open = false;
                self.got_colon = false;
                self.duration_only = false;
                Kind::RightBracket
            }
            ':' if !self.got_duration => {
                return self.fail(self.pos, "unexpected colon before duration in duration expression".into());
            }
            ':' if self.got_colon => {
                return self.fail(self.pos, "unexpected repeated colon in duration expression".into());
            }
            ':' => {
                self.got_colon = true;
                Kind::Colon
            }
            '(' => {
                self.paren_depth += 1;
                Kind::LeftParen
            }
            ')' => return self.close_paren(),
            '+' => Kind::Operator(BinaryOp::Add),
            '-' => Kind::Operator(BinaryOp::Sub),
            '*' => Kind::Operator(BinaryOp::Mul),
            '/' => Kind::Operator(BinaryOp::Div),
            '%' => Kind::Operator(BinaryOp::Mod),
            '^' => Kind::Operator(BinaryOp::Pow),
            ',' => Kind::Comma,
            's' | 'r' | 'm' | 'S' | 'R' | 'M' => match self.duration_word() {
                Some(kind) => {
                    self.got_duration = true;
                    kind
                }
                None => {
                    let message = format!("unexpected character in duration expression: {}", quote_char(c));
                    return self.fail(self.start, message);
                }
            },
            _ if c.is_ascii_digit() || c == '.' && self.peek_byte().is_some_and(|b| b.is_ascii_digit()) => {
                self.got_duration = true;
                self.duration_only = false;
                return self.number_or_duration();
            }
            _ => {
                let message = format!("unexpected character in duration expression: {}", quote_char(c));
                return self.fail(self.start, message);
            }
        };
        self.token(kind)
    }

    fn in_braces(&mut self) -> Result<Token, LexError> {
        let Some(c) = self.bump() else {
            return self.fail(self.start, "unexpected end of input inside braces".into());
        };
        let kind = match c {
            ',' => Kind::Comma,
            '"' | '\'' | '`' => return self.string(c),
            '=' if self.accept(b'~') => Kind::EqualRegex,
            '=' => Kind::Equal,
            '!' if self.accept(b'~') => Kind::NotRegex,
            '!' if self.accept(b'=') => Kind::Operator(BinaryOp::Ne),
            '!' => {
                let message =
                    format!("unexpected character after '!' inside braces: {}", quote_next(self.peek()));
                return self.fail(self.start, message);
            }
            '{' => return self.fail(self.start, "unexpected left brace '{'".into()),
            '}' => {
                self.brace_open = false;
                Kind::RightBrace
            }
            _ if self.starts_name(c) => {
                while self.peek().is_some_and(|c| self.continues_name(c)) {
                    self.bump();
                }
                Kind::Identifier
            }
            _ => {
                return self
                    .fail(self.start, format!("unexpected character inside braces: {}", quote_char(c)));
            }
        };
        self.token(kind)
    }

    fn starts_name(&self, c: char) -> bool {
        u8::try_from(c).is_ok_and(is_alpha) || self.utf8_names && !c.is_ascii() && is_letter(c)
    }

    fn continues_name(&self, c: char) -> bool {
        self.starts_name(c) || c.is_ascii_digit() || self.utf8_names && c == '.'
    }

    fn name_or_keyword(&mut self) -> Result<Token, LexError> {
        while self.peek().is_some_and(|c| c == ':' || self.continues_name(c)) {
            self.bump();
        }
        let word = &self.text[self.start..self.pos];
        let kind = match keyword(word) {
            // Metrics may be called `fill` too, so these are keywords only before a parenthesis.
            Some(Kind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.text[self.pos..].trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(') =>
            {
                Kind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => Kind::MetricIdentifier,
            None => Kind::Identifier,
        };
        self.token(kind)
    }

    /// The opening quote has been read.
    fn string(&mut self, quote: char) -> Result<Token, LexError> {
        let raw = quote == '`';
        loop {
            match self.bump() {
                Some(c) if c == quote => return self.token(Kind::String),
                None if raw => return self.fail(self.start, "unterminated raw string".into()),
                None => return self.fail(self.start, "unterminated quoted string".into()),
                Some('\u{fffd}') => return self.fail(self.start, "invalid UTF-8 rune".into()),
                Some('\n') if !raw => return self.fail(self.start, "unterminated quoted string".into()),
                Some('\\') if !raw => self.escape(quote)?,
                Some(_) => {}
            }
        }
    }

    /// The backslash has been read.
    fn escape(&mut self, quote: char) -> Result<(), LexError> {
        let (digits, base, max) = match self.bump() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\') => return Ok(()),
            Some(c) if c == quote => return Ok(()),
            Some('0'..='7') => {
                self.pos -= 1;
                (3, 8, 255)
            }
            Some('x') => (2, 16, 255),
            Some('u') => (4, 16, u32::from(char::MAX)),
            Some('U') => (8, 16, u32::from(char::MAX)),
            None => return self.fail(self.start, "escape sequence not terminated".into()),
            Some(c) => return self.fail(self.start, format!("unknown escape sequence {}", name_char(c))),
        };
        let mut code: u32 = 0;
        for _ in 0..digits {
            let Some(c) = self.bump() else {
                return self.fail(self.start, "escape sequence not terminated".into());
            };
            let Some(digit) = c.to_digit(base) else {
                return self
                    .fail(self.start, format!("illegal character {} in escape sequence", name_char(c)));
            };
            code = code.wrapping_mul(base).wrapping_add(digit);
        }
        if code > max || (0xd800..0xe000).contains(&code) {
            return self.fail(self.start, "escape sequence is an invalid Unicode code point".into());
        }
        Ok(())
    }

    /// One character of the number has been read.
    fn number_or_duration(&mut self) -> Result<Token, LexError> {
        self.pos = self.start;
        if self.number() {
            return self.token(Kind::Number);
        }
        if self.rest_of_duration() {
            return self.token(Kind::Duration);
        }
        let read = quote(&self.text[self.start..self.pos]);
        self.fail(self.start, format!("bad number or duration syntax: {read}"))
    }

    /// Reads what looks like a number; `false` when it cannot be one. Whether it is one, the parser finds out.
    fn number(&mut self) -> bool {
        let mut hex = false;
        if self.accept(b'0') && (self.accept(b'x') || self.accept(b'X')) {
            self.accept(b'_');
            hex = true;
        }
        let is_digit = |b: u8| b.is_ascii_digit() || hex && b.is_ascii_hexdigit();
        self.accept(b'.');
        if self.peek_byte().is_some_and(is_digit) {
            self.pos += 1;
        }
        let (mut got_dot, mut got_exponent) = (false, false);
        while let Some(byte) = self.peek_byte() {
            match byte {
                b'.' => {
                    self.pos += 1;
                    if got_dot {
                        return false;
                    }
                    got_dot = true;
                    if matches!(self.peek_byte(), Some(b'_' | b'.')) {
                        self.pos += 1;
                        return false;
                    }
                    if hex {
                        return false;
                    }
                }
                b'e' | b'E' => {
                    self.pos += 1;
                    if got_exponent {
                        return false;
                    }
                    got_exponent = true;
                    if matches!(self.peek_byte(), Some(b'+' | b'-')) {
                        self.pos += 1;
                    }
                    if self.spoils_number() {
                        return false;
                    }
                }
                b'_' => {
                    self.pos += 1;
                    if self.spoils_number() {
                        return false;
                    }
                }
                _ if is_digit(byte) => {
                    while self.peek_byte().is_some_and(is_digit) {
                        self.pos += 1;
                    }
                }
                _ => break,
            }
        }
        !self.peek_byte().is_some_and(|b| is_alpha(b) || b.is_ascii_digit())
    }

    /// After an exponent or a separator: the end, or something that must not follow.
    fn spoils_number(&mut self) -> bool {
        match self.peek_byte() {
            None => true,
            Some(b'.' | b'_' | b'e' | b'E') => {
                self.pos += 1;
                true
            }
            Some(_) => false,
        }
    }

    /// After digits: units and further digits. Whether units are in order, the parser finds out.
    fn rest_of_duration(&mut self) -> bool {
        let unit = |lexer: &mut Self, units: &[u8]| {
            let found = lexer.peek_byte().is_some_and(|b| units.contains(&b));
            lexer.pos += usize::from(found);
            if found {
                lexer.accept(b's');
            }
            found
        };
        if !unit(self, b"smhdwy") {
            return false;
        }
        while self.peek_byte().is_some_and(|b| b.is_ascii_digit()) {
            while self.peek_byte().is_some_and(|b| b.is_ascii_digit()) {
                self.pos += 1;
            }
            if !unit(self, b"smhdw") {
                return false;
            }
        }
        // What spoils it belongs to the text that the message shows.
        let spoilt = self.peek_byte().is_some_and(|b| is_alpha(b) || b.is_ascii_digit());
        self.pos += usize::from(spoilt);
        !spoilt
    }
}

fn is_alpha(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

/// The length of the line that `rest` begins with.
fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len())
}

/// A character as Go's `%q` prints it; the end of the text is −1 there, which prints as U+FFFD.
fn quote_next(c: Option<char>) -> String {
    quote_char(c.unwrap_or('\u{fffd}'))
}

/// A character as Go's `%#U` prints it.
fn name_char(c: char) -> String {
    if model::regex::is_printable(c) || c == ' ' {
        format!("U+{:04X} '{c}'", u32::from(c))
    } else {
        format!("U+{:04X}", u32::from(c))
    }
}
