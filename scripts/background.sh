# For the demos, which source it: a scratch folder, and the processes of what they start, by name. Both end with the script.
folder=$(mktemp -d)
declare -A pids=()
stop() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap stop EXIT
