//! Script text to commands.

use model::time::parse_duration;
use model::{Histogram, Labels};
use promql::series::{SeriesValue, parse_start_timestamps};
use promql::{ParseOptions, parse_series};
use regex::Regex;

use super::nhcb;

/// One command.
pub(super) enum Command {
    Clear,
    Load(Load),
    Eval(Box<Eval>),
}

/// Samples of a series: time, value, start timestamp (0 = unknown).
pub(super) type Loaded = (Labels, Vec<(i64, SeriesValue, i64)>);

/// `load`.
pub(super) struct Load {
    pub(super) series: Vec<Loaded>,
    pub(super) with_nhcb: bool,
}

impl Load {
    /// The samples by series, those of `load_with_nhcb` with their native twins.
    pub(super) fn all(&self) -> Result<Vec<Loaded>, String> {
        let mut all = self.series.clone();
        if self.with_nhcb {
            for (labels, time, histogram) in nhcb::convert(&self.series)? {
                let value = SeriesValue::Histogram { histogram: Box::new(histogram), hint_set: false };
                match all.last_mut() {
                    Some((last, samples)) if *last == labels => samples.push((time, value, 0)),
                    _ => all.push((labels, vec![(time, value, 0)])),
                }
            }
        }
        Ok(all)
    }
}

/// What an `expect` line matches.
pub(super) enum Text {
    Exact(String),
    Pattern(Regex),
}

impl Text {
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Pattern(pattern) => pattern.is_match(text),
        }
    }

    pub(super) fn show(&self) -> &str {
        match self {
            Self::Exact(exact) => exact,
            Self::Pattern(pattern) => pattern.as_str(),
        }
    }
}

/// An expected series, with its values by step.
pub(super) struct Expected {
    pub(super) labels: Labels,
    pub(super) values: Vec<SeriesValue>,
}

/// `eval`.
pub(super) struct Eval {
    pub(super) line: usize,
    pub(super) expr: String,
    pub(super) range: bool,
    /// Evaluation time of an instant query.
    pub(super) at: i64,
    /// Grid of a range query, or of the expected range vector.
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
    pub(super) ordered: bool,
    pub(super) fail: Option<Vec<Text>>,
    pub(super) any_warning: bool,
    pub(super) any_info: bool,
    pub(super) warnings: Vec<Text>,
    pub(super) infos: Vec<Text>,
    pub(super) no_warning: bool,
    pub(super) no_info: bool,
    pub(super) scalar: Option<f64>,
    pub(super) string: Option<String>,
    pub(super) series: Vec<Expected>,
    /// Its result is not one sample a series: no re-run as a range query.
    pub(super) only_instant: bool,
}

/// Adds (or subtracts) histograms for sequences such as `{{…}}+{{…}}x3`.
fn combine(a: &Histogram, b: &Histogram, subtract: bool) -> Result<Histogram, String> {
    engine::histograms::combine(a, b, subtract).map_err(|e| e.to_string())
}

fn values(line: &str) -> Result<(Labels, Vec<SeriesValue>), String> {
    let series = parse_series(line, &ParseOptions::ALL).map_err(|e| e.to_string())?;
    let values = series.expand(&mut combine)?;
    Ok((series.labels, values))
}

/// The commands of `text`, with the line each begins on. An error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<Command>, String> {
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let word = line.split_whitespace().next().unwrap_or("").to_lowercase();
        let body_end = (at + 1..lines.len()).find(|i| lines[*i].is_empty()).unwrap_or(lines.len());
        let body = &lines[at + 1..body_end];
        let located = |e: String| format!("line {}: {e}", at + 1);
        if word.is_empty() {
            at += 1;
        } else if word == "clear" {
            commands.push(Command::Clear);
            at += 1;
        } else if word.starts_with("load") {
            commands.push(Command::Load(load(line, body).map_err(located)?));
            at = body_end;
        } else if word.starts_with("eval") {
            let (eval, used) = eval(line, body, at + 1).map_err(located)?;
            commands.push(Command::Eval(Box::new(eval)));
            at += 1 + used;
        } else {
            return Err(located(format!("invalid command {line:?}")));
        }
    }
    Ok(commands)
}

fn load(line: &str, body: &[&str]) -> Result<Load, String> {
    let (word, step) = line.split_once(char::is_whitespace).ok_or("invalid load command")?;
    let step = parse_duration(step.trim()).map_err(|e| e.to_string())?;
    let mut series: Vec<Loaded> = Vec::new();
    let mut pending: Option<(Labels, Vec<Option<i64>>)> = None;
    for line in body {
        if let Some(starts) = parse_start_timestamps(line, &ParseOptions::ALL) {
            let starts = starts?;
            pending = Some((starts.labels, starts.offsets));
            continue;
        }
        let (labels, values) = values(line)?;
        let offsets = match pending.take() {
            None => Vec::new(),
            Some((of, offsets)) if of == labels && offsets.len() == values.len() => offsets,
            Some(_) => return Err(format!("@st line does not fit the line after it: {line}")),
        };
        let timed = values.into_iter().enumerate().map(|(at, value)| {
            let time = at as i64 * step;
            let start = offsets.get(at).copied().flatten().map_or(0, |offset| time + offset);
            (time, value, start)
        });
        // A series written twice has the values of its last line.
        series.retain(|(other, _)| *other != labels);
        series.push((labels, timed.collect()));
    }
    Ok(Load { series, with_nhcb: word == "load_with_nhcb" })
}

/// An `eval` and how many lines of the body belong to it.
fn eval(line: &str, body: &[&str], number: usize) -> Result<(Eval, usize), String> {
    let instant = Regex::new(r"^eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)$")
        .map_err(|e| e.to_string())?;
    let range =
        Regex::new(r"^eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)$")
            .map_err(|e| e.to_string())?;
    let time = |text: &str| parse_duration(text).map_err(|e| e.to_string());
    let mut eval = Eval {
        line: number,
        expr: String::new(),
        range: false,
        at: 0,
        start: 0,
        end: 0,
        step: 0,
        ordered: false,
        fail: None,
        any_warning: false,
        any_info: false,
        warnings: Vec::new(),
        infos: Vec::new(),
        no_warning: false,
        no_info: false,
        scalar: None,
        string: None,
        series: Vec::new(),
        only_instant: false,
    };
    let word;
    if let Some(parts) = instant.captures(line) {
        word = parts.get(1).map(|m| m.as_str().to_owned());
        eval.at = time(parts.get(2).map_or("", |m| m.as_str()))?;
        eval.expr = parts[3].to_owned();
        (eval.start, eval.end) = (eval.at, eval.at);
    } else if let Some(parts) = range.captures(line) {
        word = parts.get(1).map(|m| m.as_str().to_owned());
        eval.range = true;
        (eval.start, eval.end, eval.step) = (time(&parts[2])?, time(&parts[3])?, time(&parts[4])?);
        eval.expr = parts[5].to_owned();
    } else {
        return Err(format!("invalid evaluation command {line:?}"));
    }
    match word.as_deref() {
        Some("ordered") => eval.ordered = true,
        Some("fail") => eval.fail = Some(Vec::new()),
        Some("warn") => eval.any_warning = true,
        Some("info") => eval.any_info = true,
        _ => {}
    }
    for (at, line) in body.iter().enumerate() {
        if expectation(&mut eval, line)? {
            continue;
        }
        if let Some(value) = number_of(line) {
            eval.scalar = Some(value);
            return Ok((eval, at + 1));
        }
        let (labels, values) = values(line)?;
        if values.len() > 1 && !eval.range && !eval.only_instant {
            return Err(format!("more than one value in an instant evaluation: {line}"));
        }
        eval.series.push(Expected { labels, values });
    }
    Ok((eval, body.len()))
}

/// A line that is only a number: the expected scalar.
fn number_of(line: &str) -> Option<f64> {
    model::number::parse_int_auto(line).map(|n| n as f64).or_else(|| model::number::parse_float(line).ok())
}

/// Takes an `expect…` line; false when it is none.
fn expectation(eval: &mut Eval, line: &str) -> Result<bool, String> {
    if let Some(message) = line.strip_prefix("expected_fail_message") {
        eval.fail.get_or_insert_default().push(Text::Exact(message.trim().to_owned()));
        return Ok(true);
    }
    if let Some(pattern) = line.strip_prefix("expected_fail_regexp") {
        let pattern = Regex::new(pattern.trim()).map_err(|e| e.to_string())?;
        eval.fail.get_or_insert_default().push(Text::Pattern(pattern));
        return Ok(true);
    }
    if let Some(rest) = line.strip_prefix("expect range vector") {
        let words: Vec<&str> = rest.split_whitespace().collect();
        let ["from", from, "to", to, "step", step] = words[..] else {
            return Err(format!("invalid range vector definition {line:?}"));
        };
        let time = |text: &str| parse_duration(text).map_err(|e| e.to_string());
        (eval.start, eval.end, eval.step) = (time(from)?, time(to)?, time(step)?);
        eval.at = eval.end;
        eval.only_instant = true;
        return Ok(true);
    }
    if let Some(text) = line.strip_prefix("expect string ") {
        let ast = promql::parse(text, &ParseOptions::ALL).map_err(|e| e.to_string())?;
        let promql::ExprKind::String(text) = ast.kind else { return Err("expected a string literal".into()) };
        eval.string = Some(text);
        eval.only_instant = true;
        return Ok(true);
    }
    let mut words = line.splitn(2, char::is_whitespace);
    if words.next() != Some("expect") {
        return Ok(false);
    }
    let rest = words.next().unwrap_or("").trim();
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let rest = rest.trim();
    let text = if let Some(message) = rest.strip_prefix("msg:") {
        Text::Exact(message.trim().to_owned())
    } else {
        let pattern = rest.strip_prefix("regex:").map_or("^.*$", str::trim);
        Text::Pattern(Regex::new(pattern).map_err(|e| e.to_string())?)
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail.get_or_insert_default().push(text),
        "warn" => eval.warnings.push(text),
        "info" => eval.infos.push(text),
        "no_warn" => eval.no_warning = true,
        "no_info" => eval.no_info = true,
        _ => return Err(format!("invalid expect statement {line:?}")),
    }
    Ok(true)
}
