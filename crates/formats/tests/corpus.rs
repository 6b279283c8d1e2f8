//! Replays the corpora of the fuzz targets, and mutations of them, under an allocator that counts.
//!
//! One test, so that nothing else allocates meanwhile.

use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;

#[path = "../../../fuzz/src/targets.rs"]
mod targets;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A decoder under test and its name.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 9] = [
    ("text", targets::text),
    ("openmetrics", targets::openmetrics),
    ("protobuf_scrape", targets::protobuf_scrape),
    ("remote_write_v1", targets::remote_write_v1),
    ("remote_write_v2", targets::remote_write_v2),
    ("otlp_protobuf", targets::otlp_protobuf),
    ("otlp_json", targets::otlp_json),
    ("snappy", targets::snappy),
    ("gzip", targets::gzip),
];

/// The most memory that an input of `length` bytes may take in any target: what compressed inputs may become, and
/// a multiple of what was sent.
fn most_memory(length: usize) -> usize {
    (4 << 20) + 64 * length
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("a readable file"))).collect()
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

fn check(name: &str, target: fn(&[u8]), input: &[u8], about: &str) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    target(input);
    let taken = MEMORY.peak_usage().saturating_sub(before);
    let most = most_memory(input.len());
    assert!(taken <= most, "{name}: {about}: {taken} bytes for {} of input, the most is {most}", input.len());
}

#[test]
fn corpora_and_mutations_of_them() {
    let mut random = Random(42);
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 3, "{name} has a corpus");
        for (path, input) in &files {
            check(name, target, input, &path.display().to_string());
            for round in 0..200 {
                let changed = mutated(input, &mut random);
                check(
                    name,
                    target,
                    &changed,
                    &format!("{} mutation {round}: {changed:02x?}", path.display()),
                );
            }
        }
    }
}
