#!/usr/bin/env bash
# Proves that the tests of crashes, damage and faults find bugs: builds the program with bugs in it (cargo feature
# seeded_bugs, which no product has), switches on one after the other, and runs the test that must find it, at most TRIES
# times with other seeds (default 5). Each test must pass without a bug first. Fails when a bug is not found.
# Usage: scripts/seeded-bugs.sh [BUG...]     (default: all)
set -euo pipefail
cd "$(dirname "$0")/.."

# bug, test program, test, and what its failure must say (dots for spaces)
bugs=(
    "unsynced-append faults f2_f6_power I1.lost|I9.sums|I6.shrunk"
    "early-flushed faults f2_f6_power I1.lost|I9.sums|I6.shrunk"
    "early-purge faults f1_killed I1.lost|I9.sums|I6.shrunk|rounds.acknowledged,.and"
    "unproven-reads faults f3_f17_f18 I5.stale|I9.sums"
    "partial-answers faults f4_leaders I5.stale|I9.sums|I6.shrunk"
    "cut-at-damage damage salvage_gives_up served.damage"
    "unsynced-append lib simulated_clusters I1.lost|I8|log.reversion"
    "early-flushed lib simulated_clusters I1.lost|I8|log.reversion"
    "early-purge lib simulated_clusters I1.lost|I8|panic|all.nodes.are.ready"
    "clock-in-apply lib simulated_clusters I7.state.hash"
    "half-written-batch lib simulated_clusters I1.lost"
    "retry-appends-twice lib simulated_clusters I2.doubled"
    "unsynced-vote lib simulated_clusters I8.vote|I8.election.safety"
    "unproven-reads lib simulated_clusters I5.stale"
)
tries=${TRIES:-5}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export RUST_BACKTRACE=0
target=${CARGO_TARGET_DIR:-target}

# One build for all: a test without a bug chosen runs the product's code, with the feature too.
build=(--locked --quiet --workspace --features server/seeded_bugs)
cargo build "${build[@]}"
cp "$target/debug/isobar" "$folder/isobar"
export ISOBAR_BIN=$folder/isobar REQUIRE_TIERS=root,tools
run() { # run BUG PROGRAM TEST SEED: output in a file; the simulation runs a hundred of its own seeds, with the bug in it
    if [ "$2" = lib ]; then
        ISOBAR_SEEDED_BUG=$1 ISOBAR_SIM_FIRST=$(($4 * 100)) \
            cargo test "${build[@]}" --lib -- "$3" --nocapture >"$folder/out" 2>&1
        return
    fi
    ISOBAR_SEEDED_BUG=$1 ISOBAR_FAULTS_SEED=$4 \
        cargo test "${build[@]}" --test "$2" -- "$3" --nocapture --test-threads=1 >"$folder/out" 2>&1
}
wanted() { # wanted BUG ARGUMENTS...
    local bug=$1
    shift
    [ $# -eq 0 ] || [[ " $* " == *" $bug "* ]]
}
rows=()
report() { # report BUG TEST TRY SECONDS WHAT
    echo "$1: found by $2 at try $3, after $4 s: $5"
    rows+=("| \`$1\` | $2 | $3 | $4 | $5 |")
}
failed=0
passed=""
for line in "${bugs[@]}"; do
    read -r bug program filter words <<<"$line"
    wanted "$bug" "$@" || continue
    if [[ $passed != *" $filter "* ]]; then
        if ! run "" "$program" "$filter" 0; then
            echo "$filter fails without a bug:"
            cat "$folder/out"
            exit 1
        fi
        echo "$program $filter: passes without a bug"
        passed+=" $filter "
    fi
    started=$SECONDS found=""
    for try in $(seq 1 "$tries"); do
        if ! run "$bug" "$program" "$filter" "$((try - 1))" && grep -qE "$words" "$folder/out"; then
            found=$(grep -m1 -oE "($words).{0,120}" "$folder/out")
            found=${found%%$'\n'*}
            break
        fi
    done
    if [ -n "$found" ]; then
        # The simulation goes through all of its seeds: in how many it was found.
        of=$(grep -oE "[0-9]+ of [0-9]+ runs failed" "$folder/out" | sed 's/ failed//' || true)
        report "$bug" "\`$filter\`${of:+, $of}" "$try" "$((SECONDS - started))" "$found"
    else
        echo "$bug: NOT found by $filter in $tries tries; the last output:"
        tail -n 20 "$folder/out"
        failed=1
    fi
done
# The same below a single log, with real power cuts: the test has its own two bugs, and fails when it does not find them.
if wanted unsynced-vote "$@"; then
    started=$SECONDS
    if run "" power_cut a_log_without_its_fsync_is_caught 0; then
        report unsynced-vote '`a_log_without_its_fsync_is_caught`' 1 "$((SECONDS - started))" "a vote that is gone"
    else
        echo "unsynced-vote: NOT found by a_log_without_its_fsync_is_caught:"
        tail -n 20 "$folder/out"
        failed=1
    fi
fi
echo
echo "| bug | found by | tries | seconds | as |"
echo "|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
exit $failed
