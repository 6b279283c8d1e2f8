#!/usr/bin/env bash
# Every check of the repository, stage by stage; prints the time of each and the slowest tests at the end.
set -uo pipefail
cd "$(dirname "$0")/.."

report=()
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
stage() { # stage NAME COMMAND...
    local name=$1 started=$SECONDS
    shift
    echo "== $name"
    if "$@"; then
        report+=("$(printf '%5ds  ok      %s' $((SECONDS - started)) "$name")")
    else
        report+=("$(printf '%5ds  FAILED  %s' $((SECONDS - started)) "$name")")
        failed=1
    fi
}
scripts_parse() {
    local script status=0
    for script in scripts/*.sh .ci/run; do
        bash -n "$script" || status=1
        [ -x "$script" ] || { echo "$script is not executable"; status=1; }
    done
    return $status
}
run_tests() {
    cargo test --locked --workspace --no-fail-fast -- --test-threads="${TEST_THREADS:-2}" 2>&1 | tee "$log"
    return "${PIPESTATUS[0]}"
}

stage "scripts parse" scripts_parse
stage "format" cargo fmt --all --check
stage "clippy" cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
stage "docs" env RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items --quiet
stage "build of the programs under test" cargo build --locked --quiet --workspace
stage "tests" run_tests

echo
echo "skipped:"
grep -h 'skipped:' "$log" | sort -u | sed 's/^/  /' || true
echo "slowest test programs:"
grep -E '^     Running|finished in' "$log" |
    awk '/Running/{name=$2" "$3} /finished in/{match($0,/finished in [0-9.]+/); print substr($0,RSTART+12,RLENGTH-12)"s", name}' |
    sort -rn | head -n 8 | sed 's/^/  /'
echo "stages:"
printf '%s\n' "${report[@]}"
passed=$(grep -E '^test result' "$log" | awk '{p+=$4; f+=$6; i+=$8} END {printf "%d passed, %d failed, %d skipped", p, f, i}')
echo "$passed"
exit $failed
