#!/usr/bin/env bash
# The macro run: Isobar beside Debian's prometheus and victoria-metrics (PROM_BIN, VM_BIN choose others).
# Tables go to standard output, all figures to benchmark.json. SERIES, STEPS and RUNS change the size.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
cargo build --release --locked --quiet -p server
cargo build --release --locked --quiet -p benches --bin macro
prometheus=${PROM_BIN:-$(scripts/peers.sh prometheus prometheus)}
victoria=${VM_BIN:-$(scripts/peers.sh victoria-metrics victoria-metrics)}
exec "$target/macro" --isobar "$target/isobar" --prometheus "$prometheus" --victoria "$victoria" \
    --series "${SERIES:-100000}" --steps "${STEPS:-60}" --runs "${RUNS:-2}" --out "${OUT:-benchmark.json}"
