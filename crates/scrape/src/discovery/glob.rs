//! File patterns: `*`, `?` and `[a-z]` in any part of a path, as Go's `filepath.Glob`.

use std::io;
use std::path::{Path, PathBuf};

/// The existing paths that `pattern` matches, sorted. A folder that cannot be read matches nothing.
pub fn glob(pattern: &str) -> io::Result<Vec<PathBuf>> {
    if !has_meta(pattern) {
        let exists = Path::new(pattern).try_exists()?;
        return Ok(if exists { vec![PathBuf::from(pattern)] } else { Vec::new() });
    }
    let path = Path::new(pattern);
    let (Some(name), parent) = (path.file_name().and_then(|n| n.to_str()), path.parent()) else {
        return Ok(Vec::new());
    };
    let parent = parent.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
    let dirs = if has_meta(&parent) { glob(&parent)? } else { vec![PathBuf::from(&parent)] };
    let mut found = Vec::new();
    for dir in dirs {
        let listed = if dir.as_os_str().is_empty() { Path::new(".") } else { dir.as_path() };
        let entries = match std::fs::read_dir(listed) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|n| matches(name, n)) {
                found.push(dir.join(entry.file_name()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `pattern` holds a character with a meaning.
pub fn has_meta(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Whether one part of a path matches one part of a pattern.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Backtracks to the last star only, so the time is bounded by the product of the lengths.
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some('?') => Some(1),
            Some('[') => class(&pattern[p..], name[n]),
            Some('\\') if p + 1 < pattern.len() => (pattern[p + 1] == name[n]).then_some(2),
            Some(c) => (*c == name[n]).then_some(1),
            None => None,
        };
        match (step, star) {
            (Some(len), _) => {
                p += len;
                n += 1;
            }
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// The length of the class at the start of `pattern` when `c` is in it.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let end = pattern.iter().skip(2).position(|c| *c == ']').map(|at| at + 2)?;
    let (negated, mut set) = match pattern.get(1) {
        Some('^') => (true, &pattern[2..end]),
        _ => (false, &pattern[1..end]),
    };
    let mut found = false;
    while let [low, rest @ ..] = set {
        if let ['-', high, rest @ ..] = rest {
            found |= (*low..=*high).contains(&c);
            set = rest;
        } else {
            found |= *low == c;
            set = rest;
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_match_as_in_go() {
        let yes = [
            ("*.json", "a.json"),
            ("a*b*c", "axxbyyc"),
            ("?.yml", "x.yml"),
            ("[a-c]1", "b1"),
            ("[^a]1", "b1"),
            ("*", "x"),
        ];
        let no = [
            ("*.json", "a.yml"),
            ("a*b", "abc"),
            ("?.yml", "xx.yml"),
            ("[a-c]1", "d1"),
            ("[^a]1", "a1"),
            ("", "x"),
            ("[", "["),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn paths_are_listed_sorted() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.json", "c.yml"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let list = |pattern: &str| {
            let found = glob(&format!("{}/{pattern}", dir.path().display())).unwrap();
            found.iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(list("*.json"), ["a.json", "b.json"]);
        assert_eq!(list("c.yml"), ["c.yml"]);
        assert!(list("d.yml").is_empty());
        assert!(list("none/*.yml").is_empty());
    }
}
