//! What is accepted and refused, what matches, and that the fast paths agree with the engine.

use proptest::prelude::*;

use super::{Regex, is_letter, is_printable};

/// Which of `texts` match `pattern`; both constructors must agree.
fn check(pattern: &str, matching: &[&str], others: &[&str]) {
    let fast = Regex::matching(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
    let full = Regex::anchored(pattern).unwrap();
    for (texts, expected) in [(matching, true), (others, false)] {
        for text in texts {
            assert_eq!(fast.is_match(text), expected, "{pattern} on {text:?}");
            assert_eq!(full.is_match(text), expected, "{pattern} on {text:?}");
            assert_eq!(full.captures(text).is_some(), expected, "{pattern} on {text:?}");
        }
    }
}

#[test]
fn patterns_are_anchored_and_dots_match_newlines() {
    check("a.c", &["abc", "a\nc", "aéc"], &["xabc", "abcx", "ac"]);
    check("a|bc", &["a", "bc"], &["ac", "abc", ""]);
    check("", &[""], &["a"]);
    check("(?-s:a.c)", &["abc"], &["a\nc"]);
    check("^a$|\\Ab\\z", &["a", "b"], &["ab"]);
    check("a$b|x", &["x"], &["ab", "a"]);
    check("(?m:a$\n^b)", &["a\nb"], &["ab"]);
}

#[test]
fn go_syntax_with_go_meaning() {
    check(r"\Qa.b\E+", &["a.b", "a.bbb"], &["axb", "a.ba.b"]);
    check("{", &["{"], &[""]);
    check("a{2", &["a{2"], &["aa"]);
    check("a{,5}", &["a{,5}"], &["a"]);
    check("[[]a[^]b]]", &["[ac]"], &["[a]]"]);
    check(r"\07\101\x{e9}\x41", &["\u{7}AéA"], &[]);
    check(r"\p{^L}\pN\P{Greek}", &["1²a"], &["a1a", "11Ω"]);
    check(r"\d\w\s", &["1a "], &["١a ", "1é ", "1a\u{a0}", "1a\u{b}"]);
    check(r"é\b", &[], &["é"]);
    check(r"a\b-\Bb?", &["a-"], &["a-b"]);
    check("[a&&b]+", &["a&b"], &["c"]);
    check("[~~]", &["~"], &[]);
    check("[[:alpha:][:^ascii:]_]+", &["aé_"], &["1"]);
    check("(?i)k[k]", &["kK", "\u{212a}K", "K\u{212a}"], &["k"]);
    check(r"(?i)\W", &["é"], &["k", "\u{212a}", "ſ"]);
    check("(?i)ǅ[^ǆ]", &["ǄA"], &["ǆǄ"]);
    check("(?U)(a+)(a*)", &["aa"], &[""]);
    check(r"\x{d800}|a", &["a"], &["\u{fffd}"]);
    check("(?P<1x>a)(?<y>b)(?P<y>c)", &["abc"], &[]);
    check("(?:a|b(?i)c)C", &["aC", "bcC", "bCC"], &["ac"]);
}

#[test]
fn errors_are_those_of_go() {
    for (pattern, message) in [
        ("[a-z", "missing closing ]: `[a-z`"),
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a|+", "missing argument to repetition operator: `+`"),
        ("x**", "invalid nested repetition operator: `**`"),
        ("x{2}{3}?", "invalid nested repetition operator: `{2}{3}?`"),
        (r"\d{1001}", "invalid repeat count: `{1001}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("(a{10}){101}", "invalid repeat count: `{101}`"),
        (r"\u0041", r"invalid escape sequence: `\u`"),
        (r"\8", r"invalid escape sequence: `\8`"),
        (r"\C", r"invalid escape sequence: `\C`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`"),
        ("[a--c]", "invalid character class range: `a--`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        (r"\p{Foo}", r"invalid character class range: `\p{Foo}`"),
        (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
    ] {
        let expected = format!("error parsing regexp: {message}");
        assert_eq!(Regex::matching(pattern).unwrap_err().0, expected, "{pattern}");
    }
}

#[test]
fn size_and_depth_are_limited() {
    for pattern in [
        "(".repeat(100_000),
        r"(?i)\pL".repeat(1000),
        "(?i)[a-z]".repeat(300),
        "((a{100}){10}b?){1000}".to_owned(),
    ] {
        assert!(Regex::matching(&pattern).is_err());
    }
    let nested = format!("{}a{}", "(".repeat(250), ")".repeat(250));
    check(&nested, &["a"], &["b"]);
    assert!(
        Regex::matching(&format!("({nested})"))
            .unwrap_err()
            .0
            .starts_with("error parsing regexp: expression nests")
    );
    let compiled = Regex::matching(&"[a-z]{900}".repeat(100));
    assert!(compiled.is_ok() || compiled.unwrap_err().0.contains("expression too large"));
}

#[test]
fn sets_are_found() {
    let set = |pattern: &str| Regex::matching(pattern).unwrap().set_matches().map(|s| s.join(" "));
    for (pattern, expected) in [
        ("a", Some("a")),
        ("b|a|b", Some("a b")),
        ("(?:api|web)-[12](?:0|)", Some("api-1 api-10 api-2 api-20 web-1 web-10 web-2 web-20")),
        ("^(foo|bar)$", Some("bar foo")),
        (r"10\.0\.0\.1:9090|localhost", Some("10.0.0.1:9090 localhost")),
        ("colou?r", Some("color colour")),
        ("a.*", None),
        ("a+", None),
        ("(?i)a", None),
        ("[^a]", None),
        ("[a-c][a-z][a-z][a-z]", None),
        ("a\\b", None),
    ] {
        assert_eq!(set(pattern).as_deref(), expected, "{pattern}");
    }
    let large: Vec<String> = (0..20_000).map(|i| format!("instance-{i}:9100")).collect();
    let regex = Regex::matching(&large.join("|")).unwrap();
    assert_eq!(regex.set_matches().unwrap().len(), 20_000);
    assert!(regex.is_match("instance-777:9100") && !regex.is_match("instance-x:9100"));
    assert_eq!(regex.literal_prefix(), "instance-");
}

#[test]
fn prefixes_suffixes_and_parts_need_no_engine() {
    check("foo.*", &["foo", "foobar", "foo\n"], &["fo", "xfoo"]);
    check(".*foo", &["foo", "xfoo"], &["foox"]);
    check(".+foo.+", &["xfoox", "éfooé"], &["foo", "xfoo", "foox"]);
    check("a.*b.*c", &["abc", "a-b-b-c"], &["acb", "ab", "bc"]);
    check("aa.*aa", &["aaaa"], &["aaa", "aa"]);
    check(".*", &["", "a", "\n"], &[]);
    check(".+", &["a", "\n"], &[""]);
    check(".*..*", &["é"], &[""]);
    check("a.+.+b", &["aéxb"], &["axb"]);
    check("5..", &["500", "5éé"], &["50", "5000", "400"]);
    check("a.c.*e.g.*.i", &["abcdefg-i", "abcefgefghi"], &["abcdefi", "abcefg", "acefghi"]);
    check(".*a.c.*", &["xxabcx", "aéc"], &["ac", "abd"]);
    check("[^/]+/.*x[^é]*", &["é/x", "a/éx1"], &["/x", "a/xé"]);
    for (pattern, prefix) in [
        ("foo.*", "foo"),
        ("foo(bar|baz).*", "fooba"),
        ("foo[0-9]+", "foo"),
        ("(?:foo)+x", "foo"),
        ("^foo\\d", "foo"),
        ("foo|fox.*", "fo"),
        ("(?i)foo.*", ""),
        (".*foo", ""),
    ] {
        assert_eq!(Regex::matching(pattern).unwrap().literal_prefix(), prefix, "{pattern}");
    }
    assert!(Regex::matching(".*").unwrap().matches_all());
    assert!(!Regex::matching(".+").unwrap().matches_all());
}

#[test]
fn captures_are_kept() {
    let regex = Regex::anchored("(?P<a>x+)(?:y)(z)?").unwrap();
    let captures = regex.captures("xxy").unwrap();
    assert_eq!(captures.name("a").unwrap().as_str(), "xx");
    assert!(captures.get(2).is_none());
    assert_eq!(Regex::anchored("(a|b)(.*)").unwrap().captures("bcd").unwrap()[2], *"cd");
}

#[test]
fn characters_are_classed_as_in_go() {
    assert!(is_printable('é') && is_printable('\u{308}') && is_printable('\u{fffd}'));
    assert!(!is_printable('\u{a0}') && !is_printable('\u{200b}') && !is_printable('\n'));
    assert!(is_letter('温') && is_letter('ß') && !is_letter('\u{308}') && !is_letter('1'));
}

/// Patterns out of pieces with meaning.
fn pattern() -> impl Strategy<Value = String> {
    let pieces = &[
        "a", "b", "ab", ".", ".*", ".+", "|", "(", ")", "(?:", "[ab]", "[^a]", "a?", "b*", "^", "$", "\\b",
        "(?i)", "é", "x{2}",
    ][..];
    proptest::collection::vec(proptest::sample::select(pieces), 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn fast_paths_agree_with_the_engine(pattern in pattern(), texts in proptest::collection::vec("[abAxé\n]{0,6}", 4)) {
        let Ok(fast) = Regex::matching(&pattern) else { return Ok(()) };
        // The patterns made here mean the same to the regex crate, but for word boundaries.
        let same = pattern.replace("\\b", "(?-u:\\b)");
        let engine = regex::Regex::new(&format!("^(?s:{same})$")).unwrap();
        for text in &texts {
            let expected = engine.is_match(text);
            prop_assert_eq!(fast.is_match(text), expected, "{} on {:?}", pattern, text);
            if expected {
                prop_assert!(text.starts_with(fast.literal_prefix()));
            }
            if let Some(set) = fast.set_matches() {
                prop_assert_eq!(set.contains(text), expected);
            }
        }
    }

    #[test]
    fn any_pattern_gets_an_answer(pattern in "[a-c.*+?|()\\[\\]{}^$\\\\dwspL0-2,:<>Pims=é-]{0,16}", text in ".{0,8}") {
        if let Ok(regex) = Regex::anchored(&pattern) {
            prop_assert_eq!(regex.captures(&text).is_some(), regex.is_match(&text));
        }
    }
}
