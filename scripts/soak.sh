#!/usr/bin/env bash
# Long runs of the fault scenarios, with the program as released.
# Usage: scripts/soak.sh [faults|failover|all]   (default: all)
#   MINUTES=N  how long clusters go through random faults (default 30)
#   SEED=N     which faults, targets and moments (default: the time; it is printed)
#   ISOBAR_BIN=FILE  another program than the one built here
#   KILLS=N    leaders to kill for the figures of failover (default 50)
#   BUSY=N     minutes with all cores kept busy in which no leadership may change (default 10)
# Prints for each episode what its faults were seen to do, at the end which faults were covered; fails when a promise was
# broken, a fault never happened, or a node panicked.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
case $what in faults | failover | all) ;; *) sed -n '2,11p' "$0" >&2; exit 2 ;; esac
if [ -z "${ISOBAR_BIN:-}" ]; then
    cargo build --release --locked -p server
    ISOBAR_BIN=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)/release/isobar
fi
export ISOBAR_BIN
if [ "$what" != failover ]; then
    export ISOBAR_SOAK_MINUTES=${MINUTES:-30} ISOBAR_SOAK_SEED=${SEED:-$(date +%s)}
    echo "soak: $ISOBAR_SOAK_MINUTES minutes, SEED=$ISOBAR_SOAK_SEED"
    cargo test --locked --workspace --test faults -- --exact soak --nocapture
fi
if [ "$what" != faults ]; then
    export ISOBAR_FAILOVER_KILLS=${KILLS:-50} ISOBAR_BUSY_MINUTES=${BUSY:-10}
    cargo test --locked --workspace --test failover -- --nocapture --test-threads=1
fi
