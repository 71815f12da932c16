# shellcheck shell=bash
# Ours: a cluster as `ogee dev up` makes it, loaded by `ogee bench`.

ogee_why() { :; }

ogee_up() {
    local bytes number
    bytes=$(($(bytes_of "$SIZE") * 2 + $(bytes_of "$LOG")))
    mkdir -p "$WORK/ogee/data"
    # As Ceph's: the file system does not allocate under it.
    for number in 1 2 3; do filled_file "$WORK/ogee/data/cs$number-0.store" "$bytes"; done
    "$OGEE" dev up --dir "$WORK/ogee" --store-size "$bytes" --log-size "$LOG" >/dev/null 2>&1 ||
        die "no cluster: $(tail -n 3 "$WORK"/ogee/logs/*.log)"
    ogee_ask volume create img --size "$SIZE" >/dev/null
}

ogee_ask() {
    # shellcheck source=/dev/null
    (. "$WORK/ogee/ogee.env" && exec "$OGEE" "$@")
}

ogee_load() { ogee_ask bench img --dev-dir "$WORK/ogee" "$@" -o json; }

# By fio, which writes each block exactly once.
ogee_fill() {
    local exporter mds
    # shellcheck source=/dev/null
    mds=$(. "$WORK/ogee/ogee.env" && echo "$OGEE_MDS")
    OGEE_MDS=$mds "$OGEE" export nbd img --socket "$WORK/ogee/socket" >"$WORK/ogee/export.log" 2>&1 &
    exporter=$!
    wait_for 30 test -S "$WORK/ogee/socket" || die "no export: $(tail -n 3 "$WORK/ogee/export.log")"
    fio_fill --ioengine=nbd --uri="nbd+unix:///img?socket=$WORK/ogee/socket"
    end_all "$exporter"
}

ogee_cold() {
    "$OGEE" dev down --dir "$WORK/ogee" >/dev/null 2>&1
    "$OGEE" dev up --dir "$WORK/ogee" >/dev/null 2>&1 || die "the cluster does not come back"
}

ogee_pids() { cat "$WORK"/ogee/pids/*.pid; }
# shellcheck disable=SC2046 # words
ogee_rss() { rss_of $(ogee_pids); }

ogee_down() {
    [ ! -e "$WORK/ogee" ] || "$OGEE" dev down --dir "$WORK/ogee" >/dev/null 2>&1 || true
    rm -rf --one-file-system "$WORK/ogee"
}
