#!/usr/bin/env bash
# The macro runs, with the program as released. Usage: scripts/bench.sh [peers|cluster|all]   (default: all)
#   peers    Isobar beside Debian's prometheus and victoria-metrics (PROM_BIN, VM_BIN choose others); figures in benchmark.json
#   cluster  one node, and three with one and three copies; catching up and growing; figures in benchmark-cluster.json
# Tables go to standard output. SERIES, STEPS and RUNS change the size, OUT names another file for the figures of `peers`.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
case $what in peers | cluster | all) ;; *) sed -n '2,6p' "$0" >&2; exit 2 ;; esac
target=${CARGO_TARGET_DIR:-target}/release
cargo build --release --locked --quiet -p server
cargo build --release --locked --quiet -p benches --bins
size=(--series "${SERIES:-100000}" --runs "${RUNS:-2}")
if [ "$what" != cluster ]; then
    prometheus=${PROM_BIN:-$(scripts/peers.sh prometheus prometheus)}
    victoria=${VM_BIN:-$(scripts/peers.sh victoria-metrics victoria-metrics)}
    "$target/macro" --isobar "$target/isobar" --prometheus "$prometheus" --victoria "$victoria" \
        "${size[@]}" --steps "${STEPS:-60}" --out "${OUT:-benchmark.json}"
fi
if [ "$what" != peers ]; then
    "$target/cluster" --isobar "$target/isobar" "${size[@]}" --steps "${STEPS:-40}"
fi
