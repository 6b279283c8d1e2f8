//! Quoted strings as Go writes and reads them: `strconv.Quote`, and the escapes of PromQL's literals.
//!
//! Not here: finding where a literal ends and whether its escapes are well formed (`lex.rs`).

use model::regex::is_printable;

/// `text` in double quotes with Go's escapes (`strconv.Quote`): printable characters stay as they are.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_quoted(&mut out, text);
    out
}

/// Appends what [`quote`] gives.
pub fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    text.chars().for_each(|c| push_escaped(out, c, '"'));
    out.push('"');
}

/// As [`quote`], for bytes: those that are not UTF-8 become `\xNN`.
pub fn quote_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write;

    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_escaped(&mut out, c, '"'));
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// `c` in single quotes with Go's escapes (`strconv.QuoteRune`).
pub(crate) fn quote_char(c: char) -> String {
    let mut out = String::from("'");
    push_escaped(&mut out, c, '\'');
    out.push('\'');
    out
}

fn push_escaped(out: &mut String, c: char, quote: char) {
    use std::fmt::Write;

    match c {
        '\\' => out.push_str("\\\\"),
        _ if c == quote => {
            out.push('\\');
            out.push(c);
        }
        ' '..='~' => out.push(c),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ => {
            let code = u32::from(c);
            // Writing into a String cannot fail.
            let _ = match code {
                0..0x80 => write!(out, "\\x{code:02x}"),
                _ if is_printable(c) => out.write_char(c),
                0x80..0x10000 => write!(out, "\\u{code:04x}"),
                _ => write!(out, "\\U{code:08x}"),
            };
        }
    }
}

/// The bytes that a literal means: `literal` with its quotes (`"`, `'` or a backtick, within which nothing is
/// an escape). The lexer has checked the escapes; whatever it would not let pass stands for itself.
pub(crate) fn unquote(literal: &str) -> Vec<u8> {
    let inner = &literal[1..literal.len() - 1];
    if literal.starts_with('`') || !inner.contains('\\') {
        return inner.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            push_char(&mut out, c);
            continue;
        }
        let Some(escape) = chars.next() else { break };
        match escape {
            'a' => out.push(7),
            'b' => out.push(8),
            'f' => out.push(12),
            'n' => out.push(b'\n'),
            'r' => out.push(b'\r'),
            't' => out.push(b'\t'),
            'v' => out.push(11),
            'x' => out.push(take_code(&mut chars, 2, 16) as u8),
            '0'..='7' => {
                let first = escape.to_digit(8).unwrap_or(0);
                out.push((first << 6 | take_code(&mut chars, 2, 8)) as u8);
            }
            'u' => push_char(&mut out, char::from_u32(take_code(&mut chars, 4, 16)).unwrap_or('\u{fffd}')),
            'U' => push_char(&mut out, char::from_u32(take_code(&mut chars, 8, 16)).unwrap_or('\u{fffd}')),
            other => push_char(&mut out, other),
        }
    }
    out
}

fn take_code(chars: &mut std::str::Chars<'_>, digits: usize, base: u32) -> u32 {
    chars.take(digits).fold(0, |code, c| code.wrapping_mul(base) | c.to_digit(base).unwrap_or(0))
}

fn push_char(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go() {
        for (text, quoted) in [
            ("", r#""""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\u{7}\u{8}\u{c}\n\r\t\u{b}\u{1}\u{7f}", r#""\a\b\f\n\r\t\v\x01\x7f""#),
            ("é 温 ö o\u{308}", "\"é 温 ö o\u{308}\""),
            ("\u{a0}\u{feff}\u{10ffff}", r#""\u00a0\ufeff\U0010ffff""#),
        ] {
            assert_eq!(quote(text), quoted);
        }
        assert_eq!(quote_bytes(b"a\xc5z"), r#""a\xc5z""#);
        assert_eq!(quote_char('\''), r"'\''");
    }

    #[test]
    fn unquotes_as_go() {
        for (literal, bytes) in [
            (r#""double \" ' \\ \n""#, "double \" ' \\ \n".as_bytes()),
            (r#"'single \' "" é'"#, "single ' \"\" é".as_bytes()),
            (r"`raw \n \' `", r"raw \n \' ".as_bytes()),
            (r#""\x41\101\u00e9\U0001F600""#, "AAé😀".as_bytes()),
            (r#""a\xc5z""#, b"a\xc5z"),
        ] {
            assert_eq!(unquote(literal), bytes, "{literal}");
        }
    }
}
