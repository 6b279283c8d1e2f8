#!/usr/bin/env bash
# Installs what a stage needs from Debian's packages, or says what command would, when not root.
# Usage: scripts/deps.sh build | test | demo
set -euo pipefail

stage=${1:?usage: scripts/deps.sh build|test|demo}
missing=()
want() { # want PACKAGE, when the command that follows fails
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

command -v cargo >/dev/null 2>&1 || {
    echo "cargo was not found: install Rust (1.95 or newer) with rustup first, then run this again" >&2
    exit 1
}
want g++ command -v g++
want make command -v make
# libclang-cpp alone, which other packages bring, is not what bindgen loads.
want libclang-dev bash -c 'compgen -G "/usr/lib/llvm-*/lib/libclang[.-][s0-9]*" || compgen -G "/usr/lib/*/libclang[.-][s0-9]*"'
if [ "$stage" = test ] || [ "$stage" = demo ]; then
    want curl command -v curl
fi
if [ "$stage" = test ]; then
    want e2fsprogs command -v mkfs.ext4
    want strace command -v strace
    want faketime command -v faketime
    want iproute2 command -v ip
    want nftables command -v nft
    # Debian's Python makes no environments without it.
    want chromium command -v chromium
    want python3-venv python3 -c 'import ensurepip, venv'
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${missing[*]}" >&2
    echo "install them with:  sudo apt-get update && sudo apt-get install -y ${missing[*]}" >&2
    exit 1
fi
echo "installing with apt-get: ${missing[*]}"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
echo "installed: ${missing[*]}"
