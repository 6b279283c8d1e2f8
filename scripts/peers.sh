#!/usr/bin/env bash
# Unpacks Debian packages (not installing them: no service is started) and prints the path of a program in them.
# Usage: scripts/peers.sh PACKAGE PROGRAM     e.g. scripts/peers.sh prometheus-node-exporter prometheus-node-exporter
set -euo pipefail

package=${1:?usage: scripts/peers.sh PACKAGE PROGRAM} program=${2:?usage: scripts/peers.sh PACKAGE PROGRAM}
cache=${ISOBAR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isobar}/peers
binary=$cache/$package/usr/bin/$program
if [ ! -x "$binary" ]; then
    mkdir -p "$cache/$package.part"
    cd "$cache/$package.part"
    if ! apt-get download -qq "$package" >/dev/null 2>&1; then
        [ "$(id -u)" -eq 0 ] && apt-get update -qq
        apt-get download -qq "$package" >/dev/null 2>&1 || {
            echo "the Debian package $package cannot be downloaded with apt-get" >&2
            exit 1
        }
    fi
    dpkg-deb -x ./*.deb .
    rm -f ./*.deb
    rm -rf "$cache/${package:?}"
    mv "$cache/$package.part" "$cache/$package"
fi
echo "$binary"
