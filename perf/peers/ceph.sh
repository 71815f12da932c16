# shellcheck shell=bash
# Ceph RBD as a user would run it on this machine: a monitor, a manager, three BlueStore OSDs on files that
# were written once, size 3, no authentication. librbd runs in the load's process with its cache off, so
# that an answered write is on every replica, as ours.
# CEPH_OSD_SIZE (three times a sixth more than SIZE) is each OSD's file, CEPH_MEMORY (2 GiB) its target.

CEPH_PACKAGES="ceph-mon ceph-mgr ceph-osd ceph-common"
ceph_pids_started=()
ceph_daemons=()

ceph_why() {
    needs ceph-mon "$CEPH_PACKAGES" ceph-osd "$CEPH_PACKAGES" ceph-mgr "$CEPH_PACKAGES" \
        rbd "$CEPH_PACKAGES" monmaptool "$CEPH_PACKAGES" fio fio
    ! has fio || engine rbd
}

# BlueStore needs room for its metadata and for space that is given back late.
ceph_osd_size() { echo "${CEPH_OSD_SIZE:-$(($(bytes_of "$SIZE") * 7 / 4))}"; }

ceph_conf() {
    cat <<CONF
[global]
fsid = $1
mon initial members = a
mon host = [v2:127.0.0.1:$2,v1:127.0.0.1:$3]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
auth allow insecure global id reclaim = false
run dir = $WORK/ceph
admin socket = $WORK/ceph/\$name.asok
pid file = $WORK/ceph/\$name.pid
log file = $WORK/ceph/\$name.log
crash dir = $WORK/ceph
keyring = $WORK/ceph/keyring
mon data = $WORK/ceph/mon
mgr data = $WORK/ceph/mgr
osd data = $WORK/ceph/osd\$id
osd pool default size = 3
osd pool default min size = 2
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon data avail warn = 1
mon data avail crit = 0
osd objectstore = bluestore
osd memory target = ${CEPH_MEMORY:-2147483648}
bluestore block create = true
bluestore block size = $(ceph_osd_size)
bluestore block preallocate file = true
# A virtual disk may call itself rotational; this is what Ceph takes by itself for one that does not.
bluestore debug enforce settings = ssd
osd op num shards = 8
osd op num threads per shard = 2
[client]
rbd cache = false
log file =
admin socket =
CONF
}

ceph_ask() { CEPH_CONF=$WORK/ceph/ceph.conf timeout 30 ceph "$@"; }
ceph_is_clean() { ceph_ask pg stat | grep -qE '^([0-9]+) pgs: \1 active\+clean'; }

ceph_daemon() {
    CEPH_CONF=$WORK/ceph/ceph.conf "$@" -f >>"$WORK/ceph/daemons.log" 2>&1 &
    ceph_pids_started+=($!)
}

ceph_up() {
    local ports fsid osd uuid
    mapfile -t ports < <(free_ports 2)
    mkdir -p "$WORK"/ceph/{mon,mgr,osd0,osd1,osd2}
    : >"$WORK/ceph/keyring"
    fsid=$(cat /proc/sys/kernel/random/uuid)
    ceph_conf "$fsid" "${ports[0]}" "${ports[1]}" >"$WORK/ceph/ceph.conf"
    export CEPH_CONF=$WORK/ceph/ceph.conf
    monmaptool --create --fsid "$fsid" --addv a "[v2:127.0.0.1:${ports[0]},v1:127.0.0.1:${ports[1]}]" \
        "$WORK/ceph/monmap" >/dev/null
    ceph-mon --mkfs -i a --monmap "$WORK/ceph/monmap" >"$WORK/ceph/mkfs.log" 2>&1 ||
        die "ceph-mon: $(tail -n 3 "$WORK/ceph/mkfs.log")"
    ceph_daemons=("ceph-mon -i a" "ceph-mgr -i x")
    ceph_daemon ceph-mon -i a
    wait_for 60 ceph_ask mon stat || die "Ceph's monitor does not answer"
    ceph_daemon ceph-mgr -i x
    for osd in 0 1 2; do
        uuid=$(cat /proc/sys/kernel/random/uuid)
        [ "$(ceph_ask osd new "$uuid")" = "$osd" ] || die "Ceph has not made OSD $osd"
        # Written before, so that the file system does not allocate under BlueStore.
        dd if=/dev/zero of="$WORK/ceph/osd$osd/block" bs=4M count=$(($(ceph_osd_size) / 4194304 + 1)) \
            oflag=direct status=none
        truncate -s "$(ceph_osd_size)" "$WORK/ceph/osd$osd/block"
        ceph-osd -i "$osd" --mkfs --osd-uuid "$uuid" >"$WORK/ceph/mkfs.log" 2>&1 ||
            die "ceph-osd: $(tail -n 3 "$WORK/ceph/mkfs.log")"
        ceph_daemons+=("ceph-osd -i $osd")
        ceph_daemon ceph-osd -i "$osd"
    done
    ceph_ask osd pool create rbd 64 64 replicated >/dev/null 2>&1
    ceph_ask osd pool application enable rbd rbd >/dev/null 2>&1
    wait_for 180 ceph_is_clean || die "Ceph does not become clean: $(ceph_ask -s)"
    rbd create --size "$(bytes_of "$SIZE")B" rbd/img
}

ceph_args() { printf '%s\n' --ioengine=rbd --clientname=admin --pool=rbd --rbdname=img --direct=1; }

ceph_load() {
    local args
    mapfile -t args < <(ceph_args)
    fio_load "${args[@]}" -- "$@"
}

ceph_fill() {
    local args
    mapfile -t args < <(ceph_args)
    fio_fill "${args[@]}"
    wait_for 180 ceph_is_clean || die "Ceph does not become clean after it was filled"
}

ceph_cold() {
    local daemon words
    end_all "${ceph_pids_started[@]}"
    ceph_pids_started=()
    for daemon in "${ceph_daemons[@]}"; do
        read -ra words <<<"$daemon"
        ceph_daemon "${words[@]}"
    done
    wait_for 60 ceph_ask mon stat || die "Ceph's monitor does not come back"
    wait_for 180 ceph_is_clean || die "Ceph does not come back clean"
}

ceph_rss() { rss_of "${ceph_pids_started[@]}"; }
ceph_pids() { printf '%s\n' "${ceph_pids_started[@]}"; }

ceph_down() {
    end_all "${ceph_pids_started[@]}"
    ceph_pids_started=()
    rm -rf --one-file-system "$WORK/ceph"
}
