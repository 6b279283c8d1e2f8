#!/usr/bin/env bash
# The demo: node-exporter and three example services scraped by one Isobar node, and a Prometheus that remote-writes
# to it. Prints some answers once there is data, then runs until Ctrl-C. DEMO_SECONDS=N ends it after N seconds.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}/release
. scripts/background.sh
trap 'exit 0' INT TERM

cargo build --release --locked --quiet -p example-services
exporter=$(scripts/peers.sh prometheus-node-exporter prometheus-node-exporter)
prometheus=${PROM_BIN:-$(scripts/peers.sh prometheus prometheus)}

start() { # start NAME COMMAND...: in the background, its output in a file
    local name=$1
    shift
    "$@" >"$folder/$name.log" 2>&1 &
    pids[$name]=$!
    echo "started $name (process $!)"
}
start node-exporter "$exporter" --web.listen-address=127.0.0.1:9100
start example-services "$target/example-services" 8000 8001 8002
start isobar "$target/isobar" --config.file=demo/isobar.yml --storage.tsdb.path="$folder/data" \
    --web.listen-address=0.0.0.0:9090
start prometheus "$prometheus" --config.file=demo/prometheus.yml --storage.tsdb.path="$folder/prometheus" \
    --web.listen-address=127.0.0.1:9091
isobar=${pids[isobar]}

server=http://127.0.0.1:9090
ask() { # ask TITLE EXPR
    echo
    echo "# $1"
    echo "  $2"
    "$target/isobar" query instant "$server" "$2" | sed 's/^/    /'
}
echo "waiting for the first samples (about 20 s)"
for _ in $(seq 1 90); do
    kill -0 "$isobar" 2>/dev/null || { cat "$folder/isobar.log"; exit 1; }
    found=$("$target/isobar" query instant "$server" \
        'count(rate(http_requests_total[1m])) and count(up{job="prometheus"})' 2>/dev/null || true)
    [ -n "$found" ] && break
    sleep 1
done
ask "what is up" 'up'
ask "error rate by job" 'sum by (job) (rate(http_requests_total{status="500"}[1m])) / sum by (job) (rate(http_requests_total[1m]))'
ask "95th percentile of latency by job" 'histogram_quantile(0.95, sum by (job, le) (rate(http_request_duration_seconds_bucket[1m])))'
ask "queue length" 'rabbitmq_queue_size'
ask "cache hit ratio" 'cache_hit_ratio'
ask "series that the Prometheus beside it has sent" 'count({via="prometheus"})'
echo
echo "open $server/graph; Ctrl-C ends the demo"
if [ -n "${DEMO_SECONDS:-}" ]; then
    sleep "$DEMO_SECONDS"
else
    wait "$isobar"
fi
