//! Parsing of PromQL: time and memory are linear in the text (`docs/benchmarks.md`). The limits of a query are off here, so
//! that texts far beyond them show it; `element` is a byte of text. What memory a tree takes is printed first.

#![allow(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use model::seam::{Clock as _, SystemClock};
use promql::{Limits, ParseOptions, parse};

/// A tree of a chain is as high as it is long, and is checked and dropped by recursion.
const STACK: usize = 4 << 30;

/// Trees held at once, so that the pages they take are told from noise.
const HELD: usize = 8;

const UNLIMITED: ParseOptions = ParseOptions {
    limits: Limits { max_length: usize::MAX, max_depth: usize::MAX, max_operators: usize::MAX },
    ..ParseOptions::ALL
};

/// Texts by what repeats in them: operators, matchers, labels of a grouping, arguments.
fn texts(terms: usize) -> [(&'static str, String); 4] {
    let names = (0..terms).map(|i| format!("l{i}")).collect::<Vec<_>>();
    [
        ("operators", format!("x{}", " + x".repeat(terms - 1))),
        (
            "matchers",
            format!("x{{{}}}", names.iter().map(|n| format!("{n}=\"v\"")).collect::<Vec<_>>().join(",")),
        ),
        ("grouping", format!("sum by ({}) (x)", names.join(","))),
        (
            "arguments",
            format!(
                "label_join(x, \"a\", \",\", {})",
                names.iter().map(|n| format!("{n:?}")).collect::<Vec<_>>().join(", ")
            ),
        ),
    ]
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        thread.expect("a thread with a large stack").join().expect("the work ends")
    })
}

fn memory() {
    for terms in [1_000, 10_000, 100_000] {
        for (what, text) in texts(terms) {
            let bytes = on_a_large_stack(|| {
                // Once before, so that the stack's own pages are there.
                black_box(parse(&text, &UNLIMITED).expect("a valid query"));
                let before = resident();
                let trees: Vec<_> =
                    (0..HELD).map(|_| parse(&text, &UNLIMITED).expect("a valid query")).collect();
                let taken = resident().saturating_sub(before) / HELD;
                black_box(trees);
                taken
            });
            println!("parse/{what}/{terms}: {} bytes of text, a tree takes {bytes} bytes", text.len());
        }
    }
}

fn time(c: &mut Criterion) {
    memory();
    let mut group = c.benchmark_group("parse");
    group.sample_size(10).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for terms in [1_000, 10_000, 100_000] {
        for (what, text) in texts(terms) {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_with_input(BenchmarkId::new(what, terms), &text, |b, text| {
                b.iter_custom(|times| {
                    on_a_large_stack(|| {
                        let clock = SystemClock::new();
                        let started = clock.monotonic();
                        for _ in 0..times {
                            black_box(parse(text, &UNLIMITED).expect("a valid query"));
                        }
                        clock.monotonic() - started
                    })
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, time);
criterion_main!(benches);
