//! Outside bytes to batches and entries: snappy, remote write 1.0, text exposition and OpenMetrics. Throughput is in
//! samples, so the time of one element is the time of one sample.

use benches::generate::{Generator, Shape};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use formats::remote_write::decode_v1;
use formats::text::{Entry, Parser, TextFormat};
use model::TenantId;
use std::hint::black_box;

fn remote_write(c: &mut Criterion) {
    let shape = Shape {
        series: 100_000,
        steps: 1,
        interval_ms: 15_000,
        start_ms: 1_700_000_000_000,
        batch: 2_000,
        seed: 7,
    };
    let requests = Generator::new(&shape).next_step().unwrap_or_default();
    let bodies: Vec<Vec<u8>> =
        requests.iter().map(|r| formats::snappy::decompress(&r.body, 0).unwrap_or_default()).collect();
    let samples: u64 = requests.iter().map(|r| r.samples).sum();
    let mut group = c.benchmark_group("remote_write_v1");
    group.throughput(Throughput::Elements(samples));
    group.bench_function("snappy", |b| {
        b.iter(|| {
            for request in &requests {
                let _ = black_box(formats::snappy::decompress(&request.body, 32 << 20));
            }
        });
    });
    group.bench_function("copy", |b| {
        b.iter(|| bodies.iter().map(|body| black_box(body.clone()).len()).sum::<usize>())
    });
    group.bench_function("copy_and_decode", |b| {
        b.iter(|| {
            for body in &bodies {
                let _ = black_box(decode_v1(body.clone(), TenantId::anonymous()));
            }
        });
    });
    group.finish();
}

fn text(c: &mut Criterion) {
    let mut prometheus = String::new();
    for family in 0..100 {
        prometheus.push_str(&format!(
            "# HELP http_requests_{family}_total Requests.\n# TYPE http_requests_{family}_total counter\n"
        ));
        for at in 0..20 {
            prometheus.push_str(&format!(
                "http_requests_{family}_total{{method=\"GET\",path=\"/api/v1/{at}\",status=\"200\"}} {}\n",
                at * 12_345
            ));
        }
    }
    let openmetrics = format!("{prometheus}# EOF\n");
    let mut group = c.benchmark_group("text");
    group.throughput(Throughput::Elements(2_000));
    for (name, body, format) in [
        ("prometheus", &prometheus, TextFormat::Prometheus),
        ("openmetrics", &openmetrics, TextFormat::OpenMetrics),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut parser = Parser::new(body.as_bytes(), format);
                let mut n = 0;
                while let Ok(Some(entry)) = parser.next() {
                    n += u64::from(matches!(black_box(entry), Entry::Series(_)));
                }
                assert_eq!(n, 2_000);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, remote_write, text);
criterion_main!(benches);
