#!/usr/bin/env bash
# Starts one node on port 9090 that scrapes itself (or what prometheus.yml in this folder says), and prints where it
# is and a first query once it answers.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${CARGO_TARGET_DIR:-target}/release/isobar
port=${ISOBAR_PORT:-9090}
"$bin" --storage.tsdb.path="${ISOBAR_DATA:-data}" --web.listen-address="0.0.0.0:$port" "$@" &
node=$!
trap 'kill "$node" 2>/dev/null; wait "$node" 2>/dev/null' INT TERM EXIT
for _ in $(seq 1 300); do
    if curl -fsS "http://127.0.0.1:$port/-/ready" >/dev/null 2>&1; then
        cat <<EOF

Isobar is ready:   http://127.0.0.1:$port/graph
first query:       $bin query instant http://127.0.0.1:$port up
stop with Ctrl-C; the data stays in ${ISOBAR_DATA:-data}

EOF
        break
    fi
    kill -0 "$node" 2>/dev/null || break
    sleep 0.2
done
wait "$node"
