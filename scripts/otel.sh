#!/usr/bin/env bash
# Installs the OpenTelemetry SDK for Python (tests/otlp/requirements.txt) into a folder of its own, once, and prints the
# path of the Python that has it.
# Usage: scripts/otel.sh
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
requirements=$root/tests/otlp/requirements.txt
cache=${ISOBAR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/isobar}
# Other versions get another folder.
environment=$cache/otel-$(sha256sum "$requirements" | cut -c1-16)
if [ ! -e "$environment/complete" ]; then
    command -v python3 >/dev/null || { echo "python3 is not installed" >&2; exit 1; }
    mkdir -p "$cache"
    rm -rf "$environment"
    python3 -m venv "$environment" 2>&1 | tail -n 1 >&2
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" >&2 || {
        echo "the OpenTelemetry SDK cannot be installed with pip" >&2
        exit 1
    }
    touch "$environment/complete"
fi
echo "$environment/bin/python"
