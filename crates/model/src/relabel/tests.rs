//! Rules as `key=value` lines, labels as `name=value` words; the cases follow upstream's `relabel_test.go`.

use super::*;
use crate::Labels;

fn config(text: &str) -> RelabelConfig {
    let mut config = RelabelConfig::default();
    for field in text.split(" | ") {
        let (key, value) = field.split_once('=').unwrap();
        match key {
            "source" => config.source_labels = value.split(',').map(str::to_owned).collect(),
            "sep" => config.separator = value.into(),
            "regex" => config.regex = value.into(),
            "mod" => config.modulus = value.parse().unwrap(),
            "target" => config.target_label = value.into(),
            "repl" => config.replacement = value.into(),
            "action" => config.action = Action::parse(value).unwrap(),
            _ => panic!("no field {key}"),
        }
    }
    config
}

fn check(input: &str, rules: &[&str], want: Option<&str>) {
    let parse = |text: &str| {
        let pairs = text.split(' ').filter(|w| !w.is_empty()).map(|w| w.split_once('=').unwrap());
        Labels::from_pairs(pairs).unwrap()
    };
    let rules: Vec<Rule> = rules.iter().map(|r| Rule::new(config(r), NameScheme::Utf8).unwrap()).collect();
    let mut builder = LabelsBuilder::from_labels(&parse(input));
    let got = relabel(&rules, &mut builder).then(|| builder.build().unwrap());
    assert_eq!(got, want.map(parse), "{input} through {rules:?}");
}

#[test]
fn replace() {
    check(
        "a=foo b=bar",
        &["source=a | regex=f(.*) | target=d | repl=ch${1}-ch${1}"],
        Some("a=foo b=bar d=choo-choo"),
    );
    check(
        "a=foo b=bar c=baz",
        &[
            "source=a,b | regex=f(.*);(.*)r | target=a | repl=b${1}${2}m",
            "source=c,a | regex=(b).*b(.*)ba(.*) | target=d | repl=$1$2$2$3",
        ],
        Some("a=boobam b=bar c=baz d=boooom"),
    );
    check("a=boo", &["source=a | regex=f | target=b | repl=bar"], Some("a=boo"));
    check("a=foo f=baz", &["source=a | regex=(f).* | target=$1 | repl=$2"], Some("a=foo"));
    check(
        "a=some-name-value",
        &["source=a | regex=some-([^-]+)-([^,]+) | repl=${2} | target=${1}"],
        Some("a=some-name-value name=value"),
    );
    check(
        "a=some-name-0",
        &["source=a | regex=some-([^-]+)-([^,]+) | repl=${1} | target=${3}"],
        Some("a=some-name-0"),
    );
    check("a=x", &["target=cluster | repl=eu"], Some("a=x cluster=eu"));
    check("a=x", &["regex= | target=cluster | repl=eu"], Some("a=x cluster=eu"));
    check("a=x", &["source=a | regex= | target=cluster | repl=eu"], Some("a=x"));
    check("a=x b=y", &["source=a | target=b | repl="], Some("a=x"));
    check(
        "a=l1\nl2",
        &["source=a | regex=l1.*l2 | target=utf-8.label${1} | repl=match${1}"],
        Some("a=l1\nl2 utf-8.label=match"),
    );
    check(
        "__meta_tags=path:/secret,job:some-job,label:foo=bar",
        &[
            "source=__meta_tags | regex=(?:.+,|^)path:(/[^,]+).* | repl=${1} | target=__metrics_path__",
            "source=__meta_tags | regex=(?:.+,|^)label:([^=]+)=([^,]+).* | repl=${2} | target=${1}",
        ],
        Some("__meta_tags=path:/secret,job:some-job,label:foo=bar __metrics_path__=/secret foo=bar"),
    );
    check(
        "__address__=10.0.0.1:80 __meta_port=9090",
        &[r"source=__address__,__meta_port | target=__address__ | regex=(.+?)(\:\d+)?;(\d+) | repl=$1:$3"],
        Some("__address__=10.0.0.1:9090 __meta_port=9090"),
    );
}

#[test]
fn keep_and_drop() {
    check("a=foo", &["source=a | regex=.*o.* | action=drop"], None);
    check("a=foo", &["source=a | regex=f|o | action=drop"], Some("a=foo"));
    check("a=foo", &["source=a | regex=f | action=keep"], None);
    check("a=foo", &["source=a | regex=f.* | action=Keep"], Some("a=foo"));
    check("a=foo", &["source=b | regex= | action=drop"], None);
    check("t=1 p=1 q=5", &["source=t | target=p | action=keepequal"], Some("t=1 p=1 q=5"));
    check("t=1 p=1 q=5", &["source=t | target=q | action=keepequal"], None);
    check("t=1 p=1 q=5", &["source=t | target=p | action=dropequal"], None);
    check("t=1 p=1 q=5", &["source=t | target=q | action=dropequal"], Some("t=1 p=1 q=5"));
}

#[test]
fn hashmod_is_upstreams() {
    check("c=baz", &["source=c | target=d | action=hashmod | mod=1000"], Some("c=baz d=976"));
    check("a=foo\nbar", &["source=a | target=b | action=hashmod | mod=1000"], Some("a=foo\nbar b=734"));
}

#[test]
fn names() {
    check(
        "a=foo b1=bar b2=baz",
        &["regex=(b.*) | repl=bar_${1} | action=labelmap"],
        Some("a=foo b1=bar b2=baz bar_b1=bar bar_b2=baz"),
    );
    check(
        "__meta_my_bar=aaa __meta_other=c",
        &["regex=__meta_(my.*) | action=labelmap"],
        Some("__meta_my_bar=aaa __meta_other=c my_bar=aaa"),
    );
    check("a=foo b1=bar b2=baz", &["regex=(b.*) | action=labelkeep"], Some("b1=bar b2=baz"));
    check("a=foo b1=bar b2=baz", &["regex=(b.*) | action=labeldrop"], Some("a=foo"));
}

#[test]
fn case() {
    check(
        "f=bAr123Foo",
        &["source=f | target=u | action=uppercase", "source=f | target=l | action=lowercase"],
        Some("f=bAr123Foo u=BAR123FOO l=bar123foo"),
    );
    // One character for one character, as in Go.
    check("f=ß", &["source=f | target=u | action=uppercase"], Some("f=ß u=ß"));
    check("f=İΣΑΣ", &["source=f | target=l | action=lowercase"], Some("f=İΣΑΣ l=iσασ"));
}

#[test]
fn wrong_rules_are_refused_in_upstreams_words() {
    let check = |rule: &str, scheme: NameScheme, want: &str| {
        let got = Rule::new(config(rule), scheme).map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(got.err().unwrap_or_default(), want, "{rule}");
    };
    let (utf8, legacy) = (NameScheme::Utf8, NameScheme::Legacy);
    check("action=replace", utf8, "relabel configuration for replace action requires 'target_label' value");
    check(
        "action=lowercase",
        utf8,
        "relabel configuration for lowercase action requires 'target_label' value",
    );
    check("action=hashmod | target=a", utf8, "relabel configuration for hashmod requires non-zero modulus");
    check("action=lowercase | target=${3}", utf8, "");
    check(
        "action=lowercase | target=${3}",
        legacy,
        "\"${3}\" is invalid 'target_label' for lowercase action",
    );
    check("target=-${3}", utf8, "");
    check("target=-${3}", legacy, "\"-${3}\" is invalid 'target_label' for replace action");
    check("target=a.b", legacy, "\"a.b\" is invalid 'target_label' for replace action");
    check("target=a | repl=x | action=uppercase", utf8, "'replacement' can not be set for uppercase action");
    check(
        "regex=(.+) | repl=a-$1 | action=labelmap",
        legacy,
        "\"a-$1\" is invalid 'replacement' for labelmap action",
    );
    check(
        "regex=x | target=a | action=keepequal",
        utf8,
        "keepequal action requires only 'source_labels' and `target_label`, and no other fields",
    );
    check(
        "source=a | regex=x | action=labeldrop",
        utf8,
        "labeldrop action requires only 'regex', and no other fields",
    );
    assert!(Rule::new(config("regex=( | target=a"), utf8).is_err());
    assert_eq!(Action::parse("repläce").unwrap_err().to_string(), "unknown relabel action \"repläce\"");
}

#[test]
fn legacy_name_templates() {
    let yes = ["label", "label${1}", "${1}label", "${1}", "$1", "asd$2asd", "_${1}_", "foo${bar}foo", "a1"];
    let no = ["-label", "${", "$", "${}", "foo${", "-foo${1}bar-", "bar.foo${1}bar", "", "1a"];
    for (texts, want) in [(&yes[..], true), (&no[..], false)] {
        for text in texts {
            assert_eq!(is_valid_name_template(text, NameScheme::Legacy), want, "{text:?}");
        }
    }
}
