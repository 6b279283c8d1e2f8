//! The configuration file: upstream's `prometheus.yml`, unchanged, and one block of ours, `isobar:`.
//!
//! [`load_file`] reads text into a tree with places (`node`), reads the tree by typed sections (`section`), fills in
//! defaults and inheritance, and gives plain values for the crates plus the effective configuration as YAML with
//! secrets masked. Unknown keys are errors; keys that are known but have no effect yet are listed.
//!
//! Not here: flags (`flags`), and applying a configuration.

mod discovery;
mod engine;
mod http;
mod isobar;
mod node;
mod out;
mod outgoing;
mod relabel;
mod scrape_job;
mod section;
mod web;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use scrape::{Discovery, JobConfig, TargetGroup};

pub use engine::FileRetention;
pub use isobar::Isobar;
pub use node::Problem;
pub use scrape_job::Global;
pub use web::{load_web, web_files};

use out::Out;
use section::{Reader, Section};

/// The most bytes of a configuration file.
const MAX_BYTES: u64 = 16 << 20;

/// Why a configuration is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as given.
    pub file: String,
    /// What is wrong, in the order of the text where it is about the text; never empty.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    fn whole(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            problems: vec![Problem { line: 0, column: 0, message: message.into() }],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            match problem.line {
                0 => write!(f, "{newline}{}: {}", self.file, problem.message)?,
                line => write!(f, "{newline}{}:{line}:{}: {}", self.file, problem.column, problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A configuration, checked, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For the scraper.
    pub scrape: scrape::Config,
    /// The section `global`.
    pub global: Global,
    /// Patterns of rule files.
    pub rule_files: Vec<String>,
    /// Retention as the file states it.
    pub retention: FileRetention,
    /// The section `otlp`; its lookback is a flag's matter.
    pub otlp: api::OtlpSettings,
    /// The block `isobar`.
    pub isobar: Isobar,
    /// Keys that were accepted and have no effect yet, in the order of the text, each once.
    pub not_active: Vec<String>,
    /// Files that it names: what for, and which.
    pub files: Vec<(&'static str, PathBuf)>,
    yaml: String,
    /// The effective configuration of each job, secrets masked.
    job_yaml: BTreeMap<String, String>,
}

impl Loaded {
    /// The effective configuration of job `name`, with secrets masked.
    pub fn job_yaml(&self, name: &str) -> Option<&str> {
        self.job_yaml.get(name).map(String::as_str)
    }

    /// The effective configuration, with defaults filled in and secrets masked.
    pub fn to_yaml(&self) -> &str {
        &self.yaml
    }
}

/// How the environment is looked up, for `external_labels` and `proxy_from_environment`.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Loads `path` and the files that its `scrape_config_files` names.
pub fn load_file(path: &Path, env: Env<'_>) -> Result<Loaded, ConfigError> {
    let file = path.to_string_lossy();
    let text = read(path).map_err(|message| ConfigError::whole(&file, message))?;
    let dir = path.parent().unwrap_or(Path::new(""));
    load_str(&text, &file, dir, env)
}

/// Loads the text of a configuration file called `file`; relative paths in it are relative to `dir`.
pub fn load_str(text: &str, file: &str, dir: &Path, env: Env<'_>) -> Result<Loaded, ConfigError> {
    let mut loaded = load_main(text, file, dir, env)?;
    let patterns = loaded.1;
    for pattern in patterns {
        load_more_jobs(&pattern, file, &mut loaded.0, env)?;
    }
    Ok(loaded.0)
}

/// The configuration of a node that was given none: it scrapes itself, which serves `scheme` on `port`, every 5 s. The
/// metrics are taken in the process, so that passwords and client certificates of the web configuration do not matter.
pub fn builtin(scheme: &str, port: u16) -> Result<Loaded, ConfigError> {
    let scheme = if scheme == "http" { String::new() } else { format!("    scheme: {scheme}\n") };
    let text = format!(
        "global:\n  scrape_interval: 5s\n  scrape_timeout: 5s\nscrape_configs:\n  - job_name: isobar\n{scheme}    static_configs:\n      - targets: ['localhost:{port}']\n"
    );
    let mut loaded = load_str(&text, "built-in configuration", Path::new(""), &|_| None)?;
    for job in &mut loaded.scrape.jobs {
        job.own = true;
    }
    Ok(loaded)
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_BYTES {
        return Err(format!("has {size} bytes, more than {MAX_BYTES}"));
    }
    std::fs::read_to_string(path).map_err(|e| e.to_string())
}

fn load_main(text: &str, file: &str, dir: &Path, env: Env<'_>) -> Result<(Loaded, Vec<String>), ConfigError> {
    let error = |problems| ConfigError { file: file.to_owned(), problems };
    let tree = node::parse(text).map_err(|problem| error(vec![problem]))?;
    let reader = Reader::new(text, dir, env);
    let mut top = Section::new(&reader, &tree, "");
    let global = scrape_job::global(&mut top, env);
    engine::runtime(&mut top);
    let rule_files = file_patterns(&mut top, "rule_files", "rule");
    top.not_active("rule_files");
    let more = file_patterns(&mut top, "scrape_config_files", "scrape config");
    let (mut jobs, mut job_yaml) = (Vec::new(), BTreeMap::new());
    scrape_configs(&mut top, &global, &mut jobs, &mut job_yaml, file);
    let retention = engine::storage(&mut top);
    outgoing::outgoing(&mut top, global.name_scheme());
    let otlp = engine::otlp(&mut top, global.name_scheme());
    let isobar = isobar::isobar(&mut top);
    let out = top.finish();
    let (mut problems, mut not_active, files) = reader.finish();
    if !problems.is_empty() {
        problems.sort_by_key(|p| (p.line, p.column));
        return Err(error(problems));
    }
    let mut seen = std::collections::BTreeSet::new();
    not_active.retain(|what| seen.insert(what.clone()));
    let yaml = out.to_yaml();
    let scrape = scrape::Config { jobs };
    let loaded =
        Loaded { scrape, global, rule_files, retention, otlp, isobar, not_active, files, yaml, job_yaml };
    Ok((loaded, more))
}

fn scrape_configs(
    top: &mut Section<'_>,
    global: &Global,
    jobs: &mut Vec<JobConfig>,
    texts: &mut BTreeMap<String, String>,
    file: &str,
) {
    let reader = top.reader;
    top.sections("scrape_configs", "empty or null scrape config section", |section| {
        let at = section.place("job_name");
        let (job, out) = scrape_job::job(section, global);
        let Some(job) = job else { return out };
        if jobs.iter().any(|other| other.job_name == job.job_name) {
            reader.problem(
                at,
                format!("found multiple scrape configs with job name {:?} in {file}", job.job_name),
            );
        }
        texts.insert(job.job_name.clone(), out.to_yaml());
        jobs.push(job);
        out
    });
}

fn file_patterns(top: &mut Section<'_>, key: &str, what: &str) -> Vec<String> {
    let names = top.raw_texts(key);
    if let Some(bad) = names.iter().find(|name| name.find('*').is_some_and(|star| name[star..].contains('/')))
    {
        top.problem(key, format!("invalid {what} file path {bad:?}"));
    }
    let patterns: Vec<String> =
        names.iter().map(|name| top.reader.join(name).to_string_lossy().into_owned()).collect();
    if !patterns.is_empty() {
        top.put(key, Out::texts(&patterns));
    }
    patterns
}

/// Adds the jobs of the files that `pattern` matches.
fn load_more_jobs(pattern: &str, main: &str, loaded: &mut Loaded, env: Env<'_>) -> Result<(), ConfigError> {
    let paths = scrape::discovery::glob::glob(pattern).map_err(|e| {
        ConfigError::whole(main, format!("error retrieving scrape config files for {pattern:?}: {e}"))
    })?;
    for path in paths {
        let file = path.to_string_lossy().into_owned();
        let text = read(&path).map_err(|message| ConfigError::whole(&file, message))?;
        let error = |problems| ConfigError { file: file.clone(), problems };
        let tree = node::parse(&text).map_err(|problem| error(vec![problem]))?;
        let reader = Reader::new(&text, path.parent().unwrap_or(Path::new("")), env);
        let mut top = Section::new(&reader, &tree, "");
        scrape_configs(&mut top, &loaded.global, &mut loaded.scrape.jobs, &mut loaded.job_yaml, &file);
        top.finish();
        let (problems, not_active, files) = reader.finish();
        if !problems.is_empty() {
            return Err(error(problems));
        }
        loaded.not_active.extend(not_active);
        loaded.files.extend(files);
    }
    Ok(())
}

/// What is wrong with the targets that the configuration itself and its file discovery name: for checks. The second
/// list has warnings about files that are not there.
pub fn check_targets(loaded: &Loaded) -> (Vec<String>, Vec<String>) {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for job in &loaded.scrape.jobs {
        problems.extend(scrape_job::check_static(job).err());
        for source in &job.discovery {
            let Discovery::File { patterns, .. } = source else { continue };
            for pattern in patterns {
                check_group_files(pattern, job, &mut problems, &mut warnings);
            }
        }
    }
    (problems, warnings)
}

fn check_group_files(pattern: &str, job: &JobConfig, problems: &mut Vec<String>, warnings: &mut Vec<String>) {
    match scrape::discovery::glob::glob(pattern) {
        Err(error) => problems.push(format!("checking SD file {pattern:?}: {error}")),
        Ok(paths) if paths.is_empty() => {
            let job = &job.job_name;
            warnings.push(format!("file {pattern:?} for file_sd in scrape job {job:?} does not exist"));
        }
        Ok(paths) => {
            for path in paths {
                let read: Result<Vec<TargetGroup>, _> = scrape::discovery::read_groups(&path);
                let checked = match read {
                    Ok(groups) => discovery::check_groups(&groups, job),
                    Err(error) => Err(error.to_string()),
                };
                problems.extend(checked.err().map(|e| format!("checking SD file {:?}: {e}", path.display())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
