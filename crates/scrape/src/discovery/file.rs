//! Target groups in files (`file_sd_configs`): polled for changes, read again after the refresh interval anyway.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;

use super::Sender;
use super::glob::glob;
use super::groups::{read_groups, with_origin};
use crate::config::TargetGroup;

/// How often modification times are looked at.
const POLL: Duration = Duration::from_secs(3);

/// A file's state, to notice changes.
type Stamp = (Option<SystemTime>, u64);

/// The files that match some patterns.
pub(crate) struct FileSource {
    patterns: Vec<String>,
    refresh: Duration,
    files: BTreeMap<PathBuf, (Stamp, Vec<TargetGroup>)>,
    /// Files that could not be read so far.
    errors: Counter,
}

impl FileSource {
    pub(crate) fn new(patterns: Vec<String>, refresh: Duration, errors: Counter) -> Self {
        Self { patterns, refresh, files: BTreeMap::new(), errors }
    }

    /// Sends the groups at once and then after each change; never ends.
    pub(super) async fn run(mut self, sender: &Sender) {
        let mut poll = tokio::time::interval(POLL.min(self.refresh.max(Duration::from_millis(100))));
        let mut since_refresh = Duration::ZERO;
        let mut first = true;
        loop {
            poll.tick().await;
            since_refresh += poll.period();
            let all = first || since_refresh >= self.refresh;
            if all {
                since_refresh = Duration::ZERO;
            }
            let read = tokio::task::spawn_blocking(move || {
                let changed = self.read(all);
                (self, changed)
            });
            let Ok((source, changed)) = read.await else { return };
            self = source;
            if changed || first {
                sender.send(self.groups()).await;
            }
            first = false;
        }
    }

    /// Reads the files that changed (or all); true when the groups may differ. Files that cannot be read keep
    /// their groups.
    fn read(&mut self, all: bool) -> bool {
        let mut paths = Vec::new();
        for pattern in &self.patterns {
            match glob(pattern) {
                Ok(found) => paths.extend(found),
                Err(error) => {
                    self.errors.inc();
                    tracing::warn!(%pattern, %error, "cannot list files of targets");
                    return false;
                }
            }
        }
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut changed = self.files.len() != before;
        for path in paths {
            let stamp = std::fs::metadata(&path).map_or((None, 0), |m| (m.modified().ok(), m.len()));
            let known = self.files.get(&path);
            if !all && known.is_some_and(|(old, _)| *old == stamp) {
                continue;
            }
            match read_groups(&path) {
                Ok(groups) => {
                    let groups = with_origin(groups, "__meta_filepath", &path.to_string_lossy());
                    changed |= known.is_none_or(|(_, old)| *old != groups);
                    self.files.insert(path, (stamp, groups));
                }
                Err(error) => {
                    self.errors.inc();
                    tracing::error!(path = %path.display(), %error, "cannot read file of targets");
                    let kept = known.map(|(_, groups)| groups.clone()).unwrap_or_default();
                    self.files.insert(path, (stamp, kept));
                }
            }
        }
        changed
    }

    fn groups(&self) -> Vec<TargetGroup> {
        self.files.values().flat_map(|(_, groups)| groups.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_change_break_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let pattern = format!("{}/*.json", dir.path().display());
        let mut source = FileSource::new(vec![pattern], Duration::from_secs(60), Counter::default());
        let targets = |source: &FileSource| {
            source.groups().iter().flat_map(|g| g.targets.clone()).collect::<Vec<_>>().join(" ")
        };

        assert!(!source.read(true));
        write("a.json", r#"[{"targets": ["a"]}]"#);
        write("b.json", r#"[{"targets": ["b"]}]"#);
        assert!(source.read(false));
        assert_eq!(targets(&source), "a b");
        assert_eq!(source.groups()[0].labels["__meta_filepath"], path("a.json").to_str().unwrap());
        assert!(!source.read(false));
        assert!(!source.read(true));

        write("a.json", r#"[{"targets": ["a", "a2"]}]"#);
        assert!(source.read(false));
        write("b.json", "[broken");
        assert!(!source.read(false));
        assert_eq!(targets(&source), "a a2 b");
        assert_eq!(source.errors.get(), 1);

        std::fs::remove_file(path("a.json")).unwrap();
        assert!(source.read(false));
        assert_eq!(targets(&source), "b");
    }
}
