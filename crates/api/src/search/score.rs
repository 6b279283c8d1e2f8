//! How well a text fits search terms: 1 = it is one, or begins with it; 0 < score < 1 = less so. The measures are
//! upstream's (`util/strutil/{subsequence,jarowinkler}.go`, `web/api/v1/search_filters.go`), over characters.

/// What counts as similar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// All characters of the term in order; runs count more, gaps less.
    Subsequence,
    /// The term as a part of the text, or by Jaro-Winkler's similarity once there is a threshold.
    JaroWinkler,
}

/// A search: texts that fit any of its terms.
#[derive(Clone, Debug)]
pub(super) struct Search {
    terms: Vec<Vec<char>>,
    threshold: f64,
    algorithm: Algorithm,
    case_sensitive: bool,
}

impl Search {
    /// A search for `terms`, empty ones left out; with none, every text fits.
    pub(super) fn new(terms: &[&str], threshold: f64, algorithm: Algorithm, case_sensitive: bool) -> Self {
        let chars = |term: &&str| -> Vec<char> {
            if case_sensitive { term.chars().collect() } else { term.to_lowercase().chars().collect() }
        };
        let terms = terms.iter().filter(|term| !term.is_empty()).map(chars).collect();
        Self { terms, threshold, algorithm, case_sensitive }
    }

    /// The best score of `text` over all terms, or `None` when it fits none.
    pub(super) fn score(&self, text: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        let text: Vec<char> =
            if self.case_sensitive { text.chars().collect() } else { text.to_lowercase().chars().collect() };
        let scores = self.terms.iter().filter_map(|term| self.one(term, &text));
        scores.reduce(f64::max)
    }

    fn one(&self, term: &[char], text: &[char]) -> Option<f64> {
        match self.algorithm {
            Algorithm::Subsequence => {
                if text.starts_with(term) {
                    return Some(1.0);
                }
                let score = subsequence(term, text);
                (score > 0.0 && score >= self.threshold).then_some(score)
            }
            Algorithm::JaroWinkler => {
                if let Some(score) = substring(term, text) {
                    return Some(score);
                }
                if self.threshold == 0.0 {
                    return None;
                }
                let score = jaro_winkler(term, text);
                (score >= self.threshold).then_some(score)
            }
        }
    }
}

/// 1 at the start, down to 0.1 at the end.
fn substring(term: &[char], text: &[char]) -> Option<f64> {
    let at = text.windows(term.len()).position(|window| window == term)?;
    let last = text.len() - term.len();
    Some(if at == 0 { 1.0 } else { 1.0 - 0.9 * at as f64 / last as f64 })
}

/// The best of all starts: squares of runs, less the gaps before and between (as parts of the text's length), less
/// half of what trails; over the square of the term's length, and below 1.
fn subsequence(term: &[char], text: &[char]) -> f64 {
    let mut best = -1.0f64;
    for start in 0..(text.len() + 1).saturating_sub(term.len()) {
        if text[start] != term[0] {
            continue;
        }
        // What cannot be completed from here cannot be from later on.
        let Some(score) = subsequence_from(term, text, start) else { break };
        best = best.max(score);
    }
    if best < 0.0 { 0.0 } else { best / (term.len() * term.len()) as f64 * 0.999 }
}

fn subsequence_from(term: &[char], text: &[char], start: usize) -> Option<f64> {
    let part = 1.0 / text.len() as f64;
    let (mut score, mut used, mut at, mut free_from) = (0.0, 0, start, 0);
    while used < term.len() {
        let run_start = at + text[at..].iter().position(|c| *c == term[used])?;
        let run = text[run_start..].iter().zip(&term[used..]).take_while(|(a, b)| a == b).count();
        score += (run * run) as f64 - (run_start - free_from) as f64 * part;
        used += run;
        at = run_start + run;
        free_from = at;
    }
    Some(score - (text.len() - at) as f64 * part * 0.5)
}

fn jaro_winkler(term: &[char], text: &[char]) -> f64 {
    let (a, b) = if term.len() > text.len() { (text, term) } else { (term, text) };
    if a.is_empty() {
        return 0.0;
    }
    let reach = (b.len() / 2).saturating_sub(1);
    let (mut a_matched, mut b_matched) = (vec![false; a.len()], vec![false; b.len()]);
    for (i, c) in a.iter().enumerate() {
        let window = i.saturating_sub(reach)..(i + reach + 1).min(b.len());
        if let Some(j) = window.into_iter().find(|j| !b_matched[*j] && b[*j] == *c) {
            (a_matched[i], b_matched[j]) = (true, true);
        }
    }
    let taken = |all: &[char], matched: &[bool]| -> Vec<char> {
        all.iter().zip(matched).filter(|(_, m)| **m).map(|(c, _)| *c).collect()
    };
    let (a_taken, b_taken) = (taken(a, &a_matched), taken(b, &b_matched));
    let matches = a_taken.len() as f64;
    if matches == 0.0 {
        return 0.0;
    }
    let crossed = a_taken.iter().zip(&b_taken).filter(|(x, y)| x != y).count() as f64;
    let jaro =
        (matches / a.len() as f64 + matches / b.len() as f64 + (matches - crossed * 0.5) / matches) / 3.0;
    let prefix = a.iter().zip(b).take(4).take_while(|(x, y)| x == y).count() as f64;
    jaro + prefix * 0.1 * (1.0 - jaro)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(term: &str, text: &str, algorithm: Algorithm, threshold: f64) -> Option<f64> {
        Search::new(&[term], threshold, algorithm, true).score(text)
    }

    #[test]
    fn runs_count_and_gaps_cost() {
        let check = |term: &str, text: &str, expected: Option<f64>| {
            let found = score(term, text, Algorithm::Subsequence, 0.0);
            let same = match (found, expected) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            assert!(same, "{term} in {text}: {found:?}, expected {expected:?}");
        };
        check("up", "up", Some(1.0));
        check("node", "node_cpu", Some(1.0));
        check("x", "node", None);
        check("dn", "node", None);
        // "cpu" at 5 of 8 characters: 9 - 5/8, over 9.
        check("cpu", "node_cpu", Some((9.0 - 5.0 / 8.0) / 9.0 * 0.999));
        // "n" and "c" apart: 1 + 1 - 4/8 - 2/8/2, over 4.
        check("nc", "node_cpu", Some((2.0 - 4.0 / 8.0 - 2.0 / 8.0 / 2.0) / 4.0 * 0.999));
        check("é", "caféé", Some((1.0 - 3.0 / 5.0 - 0.5 / 5.0) * 0.999));
        assert_eq!(score("nc", "node_cpu", Algorithm::Subsequence, 0.5), None, "below the threshold");
    }

    #[test]
    fn parts_of_a_text_and_similar_ones() {
        assert_eq!(score("cpu", "node_cpu", Algorithm::JaroWinkler, 0.0), Some(1.0 - 0.9));
        assert_eq!(score("ode", "node_cpu", Algorithm::JaroWinkler, 0.0), Some(1.0 - 0.9 / 5.0));
        assert_eq!(score("martha", "marhta", Algorithm::JaroWinkler, 0.0), None);
        // The example that everybody uses for this measure.
        let found = score("martha", "marhta", Algorithm::JaroWinkler, 0.9).unwrap();
        assert!((found - 0.961_111).abs() < 1e-6, "{found}");
        assert_eq!(score("abc", "xyz", Algorithm::JaroWinkler, 0.1), None);
    }

    #[test]
    fn any_term_and_any_case() {
        let search = Search::new(&["CPU", "", "mem"], 0.0, Algorithm::Subsequence, false);
        assert!(search.score("Node_cpu").is_some() && search.score("MEM").is_some());
        assert_eq!(search.score("disk"), None);
        assert_eq!(Search::new(&[""], 0.0, Algorithm::Subsequence, true).score("x"), Some(1.0));
    }
}
