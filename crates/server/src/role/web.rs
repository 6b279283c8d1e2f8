//! The web configuration while serving: loaded at start, and again when its file, or a file that it names, changes.
//!
//! A file that cannot be used any more changes nothing: what was loaded before stays in force, and the log says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use api::web::{Web, WebSettings, WebSource};
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::config;

/// How often the files are looked at.
const RECHECK: Duration = Duration::from_secs(1);

/// Loads the web configuration that `file` names; without one everybody may ask, in plain HTTP.
pub(super) fn load(file: Option<&Path>) -> Result<WebSource> {
    let web = match file {
        None => Web::new(WebSettings::default()).map_err(anyhow::Error::msg)?,
        Some(file) => config::load_web(file)?,
    };
    Ok(Arc::new(ArcSwap::from_pointee(web)))
}

/// Loads the file again and puts it into force. Whether there is TLS at all cannot change while serving.
pub(super) fn reload(file: Option<&Path>, web: &WebSource) -> Result<(), String> {
    let Some(file) = file else { return Ok(()) };
    let loaded = config::load_web(file).map_err(|error| error.to_string())?;
    let before = web.load_full();
    if loaded.settings() == before.settings() {
        return Ok(());
    }
    if loaded.tls().is_some() != before.tls().is_some() {
        return Err(format!("{}: TLS can be switched on or off only by a restart", file.display()));
    }
    web.store(Arc::new(loaded));
    Ok(())
}

/// What tells that a file changed, without reading it.
type Stamp = Option<(SystemTime, u64, u64)>;

fn stamps(file: &Path) -> Vec<(PathBuf, Stamp)> {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    config::web_files(file).into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// Watches the files until `stop`.
pub(super) async fn watch(file: PathBuf, web: WebSource, stop: CancellationToken) {
    let mut known: Option<Vec<(PathBuf, Stamp)>> = None;
    let mut ticks = tokio::time::interval(RECHECK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let (path, source, before) = (file.clone(), Arc::clone(&web), known.take());
        let looked = tokio::task::spawn_blocking(move || {
            let now = stamps(&path);
            if before.is_some_and(|before| before != now) {
                match reload(Some(&path), &source) {
                    Ok(()) => tracing::info!(file = %path.display(), "web configuration loaded"),
                    Err(error) => {
                        tracing::error!(%error, "the web configuration was not loaded; the one before stays in force");
                    }
                }
            }
            now
        });
        known = looked.await.ok();
    }
}
