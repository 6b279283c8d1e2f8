#!/usr/bin/env bash
# The demo of a cluster: three nodes on loopback under load, their status drawn again and again, one node killed (-9) and
# started again. At its end: how many queries failed and how many samples were lost (none, or the exit code is 1).
# DEMO_SECONDS=N makes it as long as that (30 at least); 60 without.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
isobar=${ISOBAR_BIN:-$target/isobar}
seconds=${DEMO_SECONDS:-60}
[ "$seconds" -ge 30 ] || seconds=30
. scripts/background.sh
trap 'exit 1' INT TERM

cargo build --release --locked --quiet -p benches --bin cluster-load
declare -A web=([a]=9190 [b]=9191 [c]=9192) peer=([a]=9195 [b]=9196 [c]=9197)
join=127.0.0.1:9195,127.0.0.1:9196,127.0.0.1:9197
node() { # node NAME: in the background, its log in a file
    local name=$1
    "$isobar" --config.file=/dev/null --storage.tsdb.path="$folder/$name" --node.name="$name" \
        --cluster.name=demo --cluster.bootstrap-expect=3 --cluster.join=$join \
        --cluster.listen-address="127.0.0.1:${peer[$name]}" --web.listen-address="127.0.0.1:${web[$name]}" \
        >>"$folder/$name.log" 2>&1 &
    pids[$name]=$!
    echo "started node $name (process $!, http://127.0.0.1:${web[$name]})"
}
ready() { # ready NAME: waits until it serves
    for _ in $(seq 1 300); do
        curl -fsS "http://127.0.0.1:${web[$1]}/-/ready" >/dev/null 2>&1 && return 0
        kill -0 "${pids[$1]}" 2>/dev/null || { cat "$folder/$1.log"; exit 1; }
        sleep 0.2
    done
    echo "node $1 is not ready"
    exit 1
}
status() { # status NAME TITLE
    echo
    echo "# $2 (isobar cluster status --server=http://127.0.0.1:${web[$1]})"
    "$isobar" cluster status --server="http://127.0.0.1:${web[$1]}" | sed 's/^/    /'
}

for name in a b c; do node "$name"; done
for name in a b c; do ready "$name"; done
status a "the cluster has formed"

"$target/cluster-load" "$seconds" 127.0.0.1:9190 127.0.0.1:9191 127.0.0.1:9192 >"$folder/load.txt" 2>&1 &
pids[load]=$!
echo
echo "1,000 series are written twice a second, and counted all the time, for $seconds s"
sleep $((seconds / 4))
status a "under load"

echo
echo "kill -9 of node b"
kill -9 "${pids[b]}"
wait "${pids[b]}" 2>/dev/null || true
sleep 2
status a "two seconds after"
sleep $((seconds / 4))
echo
node b
ready b
sleep 3
status b "it is back, and has caught up"

outcome=0
wait "${pids[load]}" || outcome=$?
unset 'pids[load]'
echo
echo "# the account"
sed 's/^/    /' "$folder/load.txt"
exit $outcome
