//! Replays the corpora of the fuzz targets, and mutations of them, under an allocator that counts.
//!
//! One test allocates much; the others next to nothing, so that they may run meanwhile.

use std::path::{Path, PathBuf};

use fuzz_targets::{Target, find, seeds, targets};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most memory that an input of `length` bytes may take.
fn most_memory(target: &Target, length: usize) -> usize {
    (target.memory_mib << 20) + 64 * length
}

/// The files of a target and the seeds that are made for it, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| entry.expect("a readable folder").path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let read = |path: PathBuf| (path.display().to_string(), std::fs::read(&path).expect("a readable file"));
    let made = seeds().into_iter().filter(|(of, ..)| *of == target).map(|(_, name, bytes)| (name, bytes));
    files.into_iter().map(read).chain(made).collect()
}

/// A small generator with a fixed seed, so that a failure comes again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// `input` with a few bytes changed, left out or repeated.
fn mutated(input: &[u8], random: &mut Random) -> Vec<u8> {
    const NASTY: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\\', b'{'];
    let mut out = input.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            break;
        }
        let at = random.below(out.len());
        match random.below(4) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = NASTY[random.below(NASTY.len())],
            2 => out.truncate(at),
            _ => {
                let end = (at + random.below(20)).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
        }
    }
    out
}

fn check(target: &Target, input: &[u8], about: &str) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    (target.run)(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let (name, most) = (target.name, most_memory(target, input.len()));
    assert!(taken <= most, "{name}: {about}: {taken} bytes for {} of input, the most is {most}", input.len());
}

/// Goes on with mutations of mutations for as many seconds as `ISOBAR_FUZZ_SECONDS` says: not led by what they reach, as
/// the fuzzer is, and without a build of its own.
#[allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the environment says how long; it tells its count"
)]
fn wander(target: &Target, files: Vec<(String, Vec<u8>)>, random: &mut Random) {
    let seconds = std::env::var("ISOBAR_FUZZ_SECONDS").ok().map_or(0, |text| text.parse().expect("a number"));
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let mut pool: Vec<Vec<u8>> = files.into_iter().map(|(_, input)| input).collect();
    let mut count = 0;
    while std::time::Instant::now() < end {
        let from = random.below(pool.len());
        let changed = mutated(&pool[from], random);
        check(target, &changed, &format!("mutation {changed:02x?}"));
        count += 1;
        if pool.len() < 200 {
            pool.push(changed);
        } else if random.below(10) == 0 {
            let to = random.below(pool.len());
            pool[to] = changed;
        }
    }
    if seconds > 0 {
        println!("{}: {count} inputs in {seconds} s", target.name);
    }
}

#[test]
fn corpora_and_mutations_of_them() {
    let mut random = Random(42);
    for target in targets() {
        let files = corpus(target.name);
        assert!(!files.is_empty(), "{} has a corpus", target.name);
        // What is made once and kept is not of this input.
        (target.run)(&files[0].1);
        for (name, input) in &files {
            check(target, input, name);
            for round in 0..100 {
                let changed = mutated(input, &mut random);
                check(target, &changed, &format!("{name} mutation {round}: {changed:02x?}"));
            }
        }
        wander(target, files, &mut random);
    }
}

#[test]
fn every_folder_and_seed_is_of_a_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus");
    let folders =
        std::fs::read_dir(folder).expect("the corpus").map(|entry| entry.expect("an entry").file_name());
    let folders = folders.map(|name| name.into_string().expect("a plain name"));
    for name in folders.chain(seeds().into_iter().map(|(target, ..)| target.to_owned())) {
        assert!(find(&name).is_some(), "{name} is no target");
    }
}

/// `ISOBAR_SEEDS` names a folder that the seeds are written to, for the fuzzer.
#[test]
#[allow(clippy::disallowed_methods, reason = "the environment names the folder")]
fn seeds_are_written_where_asked() {
    let Ok(folder) = std::env::var("ISOBAR_SEEDS") else { return };
    for (target, name, bytes) in seeds() {
        let folder = Path::new(&folder).join(target);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(name), bytes).expect("a file");
    }
}
