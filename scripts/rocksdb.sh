#!/usr/bin/env bash
# Builds RocksDB's static library once for all profiles and clones, and keeps it in a cache outside the clone.
# Prints nothing when the library is there. Compiling takes about 15 minutes on two cores; progress is shown.
# Usage: scripts/rocksdb.sh [dir]     "dir" only prints the folder where the library is or will be.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${ISOBAR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isobar}
version=$(sed -n '/^name = "librocksdb-sys"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
dir=$cache/rocksdb-$version-$(uname -m)
[ "${1:-}" = dir ] && { echo "$dir"; exit 0; }
[ -e "$dir/librocksdb.a" ] && exit 0

mkdir -p "$dir"
work=$cache/rocksdb-build-$$
trap 'rm -rf "$work"' EXIT
echo "compiling RocksDB $version once (about 15 minutes on two cores); it is then kept in $dir"
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$work" \
    cargo build --release --locked --quiet -p librocksdb-sys >"$dir/build.log" 2>&1 &
build=$!
total=385 seconds=0
while kill -0 "$build" 2>/dev/null; do
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$build" 2>/dev/null || break
        sleep 2
        seconds=$((seconds + 2))
    done
    objects=$(find "$work" -name '*.o' 2>/dev/null | wc -l)
    if [ "$objects" -gt 5 ]; then
        echo "  RocksDB: $objects of about $total files after $((seconds / 60))m$((seconds % 60))s, about $((objects < total ? (total - objects) * seconds / objects / 60 + 1 : 1)) min left"
    fi
done
wait "$build" || {
    cat "$dir/build.log" >&2
    echo "compiling RocksDB failed; the log is in $dir/build.log" >&2
    exit 1
}
library=$(find "$work" -name librocksdb.a | head -n 1)
[ -n "$library" ] || { echo "librocksdb.a was not made; the log is in $dir/build.log" >&2; exit 1; }
cp "$library" "$dir/librocksdb.a.part"
mv "$dir/librocksdb.a.part" "$dir/librocksdb.a"
echo "RocksDB is compiled"
