#!/usr/bin/env bash
# Real processes under real clients: kills, restarts, databases. docs/testing.md says what each
# test proves.   ONLY="fio_kills memory" KEEP=1 SEED=7 scripts/test cluster
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
# shellcheck source=scripts/lib/heal.sh
. "$REPO/scripts/lib/heal.sh"
cd "$REPO"

# ---- starting and stopping --------------------------------------------------------------------

test_up() {
    cluster_up
    local name pid pids=()
    for name in mds1 cs1 cs2 cs3; do
        pid=$(node_pid "$name") || give_up "$name does not run"
        pids+=("$pid")
        [ -s "$DIR/logs/$name.log" ] || give_up "no log of $name"
    done
    is_healthy >/dev/null || give_up "dev up returned before the cluster was healthy"
    create_volume kept --size 64MiB

    # A second cluster on the machine is not touched by the first one's end. It has twice as many chunkservers as it needs:
    # those that come last carry as much as the others, from the start.
    mkdir "$TEST_DIR/other"
    defer "$OGEE" dev down --dir "$TEST_DIR/other"
    "$OGEE" dev up --dir "$TEST_DIR/other" --nodes 6 --zones 3 --copysets 12 --store-size 1GiB --log-size 128MiB >"$TEST_DIR/other.log" 2>&1 ||
        give_up "dev up of six: $(tail -n 4 "$TEST_DIR/other.log")"
    use_cluster "$TEST_DIR/other"
    "$OGEE" device ls -o json | jq -e '[.devices[].replicas] == [6, 6, 6, 6, 6, 6]' >/dev/null || give_up "not on all: $("$OGEE" device ls)"
    "$OGEE" zone ls -o json | jq -e '[.zones[].servers] == [2, 2, 2]' >/dev/null || give_up "zones: $("$OGEE" zone ls)"
    "$OGEE" dev down --dir "$DIR"
    for pid in "${pids[@]}"; do
        process_gone "$pid" || give_up "pid $pid outlives dev down"
    done
    is_healthy >/dev/null || give_up "dev down ended another cluster"

    # Up again: the same cluster with the same volume; and once more: nothing to do.
    "$OGEE" dev up --dir "$DIR" >"$TEST_DIR/again.log" 2>&1
    use_cluster "$DIR"
    "$OGEE" volume show kept -o json | jq -e '.name == "kept"' >/dev/null
    pid=$(node_pid cs1)
    "$OGEE" dev up --dir "$DIR" >>"$TEST_DIR/again.log" 2>&1
    [ "$(node_pid cs1)" = "$pid" ] || give_up "dev up restarted a process that ran"
}

# A chunkserver that has never run, on a machine that comes up before the metadata servers': it waits for them, since only they
# know for which cluster to make its store.
test_late_mds() {
    DIR=$TEST_DIR/c
    "$OGEE" dev up --dir "$DIR" --nodes 1 --log-size 128MiB >"$TEST_DIR/up.log" 2>&1
    defer "$OGEE" dev down --dir "$DIR"
    use_cluster "$DIR"
    "$OGEE" dev down --dir "$DIR"
    rm -rf "$DIR"/data/* "$DIR"/logs/*
    "$OGEE" dev start cs1 --dir "$DIR" >"$TEST_DIR/cs1.log" 2>&1 &
    local starter=$!
    wait_for 30 grep -q "waiting for one" "$DIR/logs/cs1.log" || give_up "cs1 does not say that it waits: $(tail -n 3 "$DIR/logs/cs1.log")"
    "$OGEE" dev start mds1 --dir "$DIR" >"$TEST_DIR/mds1.log" 2>&1
    wait "$starter" || give_up "cs1 did not start: $(tail -n 3 "$TEST_DIR/cs1.log" "$DIR/logs/cs1.log")"
    "$OGEE" server ls -o json | jq -e '.servers | length == 1 and .[0].state == "online"' >/dev/null ||
        give_up "cs1 is not online: $("$OGEE" server ls)"
}

# As a user without rights, with the default limit on locked memory.
test_up_user() {
    need_root
    chown 65534:65534 "$TEST_DIR"
    local user=(prlimit --memlock=8388608:8388608 setpriv --reuid=65534 --regid=65534 --clear-groups env "HOME=$TEST_DIR")
    # The plain binary is what dev up starts again; every call goes through the user.
    printf '#!/bin/sh\nexec %s %s "$@"\n' "${user[*]}" "$OGEE" >"$TEST_DIR/ogee"
    chmod 755 "$TEST_DIR/ogee"
    OGEE=$TEST_DIR/ogee
    "${user[@]}" test -x "$OGEE" || give_skip "another user cannot reach $WORK: set TMPDIR"
    cluster_up
    [ "$(stat -c %u "/proc/$(node_pid cs1)")" = 65534 ] || give_up "cs1 does not run as the user"
    create_volume mine --size 256MiB
    export_start mine
    qemu-io -f raw -c 'write -P 0x5a 3M 1M' -c 'flush' -c 'read -P 0x5a 3M 1M' "$URI" >"$TEST_DIR/io.log"
    export_stop
    "$OGEE" dev down --dir "$DIR"
}

# Metadata servers of two releases: what not all understand is refused until the last one is upgraded.
test_mds_versions() {
    local id
    export OGEE_MDS_SERVER__ACT_AS_VERSION=1
    cluster_up --mds-nodes 3 --nodes 3 --copysets 4 --store-size 1GiB --log-size 128MiB
    unset OGEE_MDS_SERVER__ACT_AS_VERSION
    create_volume disk --size 256MiB
    export_start disk
    for id in 1 2 3; do
        wait_for 30 refused_for "$id" || give_up "not said that mds$id is older: $(cat "$TEST_DIR/set.log")"
        "$OGEE" volume create "while$id" --size 64MiB || give_up "volume create while mds$id is old"
        kill -TERM "$(node_pid "mds$id")"
        wait_for 30 node_gone "mds$id" || give_up "mds$id does not end"
        node_start "mds$id"
        wait_for 60 "$OGEE" mds check >"$TEST_DIR/check.log" 2>&1 || give_up "mds check: $(cat "$TEST_DIR/check.log")"
    done
    wait_for 60 versions_raised || give_up "not raised: $("$OGEE" mds ls)"
    wait_for 30 "$OGEE" pool set default --scatter-width 2 >"$TEST_DIR/set.log" 2>&1 || give_up "pool set: $(cat "$TEST_DIR/set.log")"
    "$OGEE" pool ls -o json | jq -e '.pools[0] | .scatter_width == 2 and .scatter_least == 2 and .scatter_most == 2' >/dev/null || give_up "$("$OGEE" pool ls -o json)"

    # Back to the old release: its own data directory is refused, and the others go on.
    kill -TERM "$(node_pid mds3)"
    wait_for 30 node_gone mds3 || give_up "mds3 does not end"
    if OGEE_MDS_SERVER__ACT_AS_VERSION=1 "$OGEE" dev start mds3 --dir "$DIR" >"$TEST_DIR/back.log" 2>&1; then give_up "mds3 of the old release started"; fi
    grep -q "OGEE-2104" "$TEST_DIR/back.log" || give_up "not said why: $(cat "$TEST_DIR/back.log")"
    "$OGEE" volume create after --size 64MiB || give_up "volume create by two of three"
    node_start mds3
    wait_for 60 "$OGEE" mds check >"$TEST_DIR/check.log" 2>&1 || give_up "mds check: $(cat "$TEST_DIR/check.log")"
    export_stop
}

# Until the one that leads has heard all others.
refused_for() {
    if "$OGEE" pool set default --scatter-width 2 >"$TEST_DIR/set.log" 2>&1; then give_up "set before mds$1 was upgraded"; fi
    grep -q "OGEE-2096" "$TEST_DIR/set.log" && grep -q "metadata server $1 at .* understands 1" "$TEST_DIR/set.log"
}

node_gone() {
    ! node_pid "$1" >/dev/null
}

versions_raised() {
    "$OGEE" mds ls -o json | jq -e 'all(.members[]; .commands > 1 and .group_commands == .commands)' >/dev/null
}

# ---- commands ---------------------------------------------------------------------------------

# expect STATUS COMMAND...   asserts the exit code; output in $TEST_DIR/expect.log
expect() {
    local want=$1 got=0
    shift
    "$@" >"$TEST_DIR/expect.log" 2>&1 || got=$?
    [ "$got" = "$want" ] || give_up "exit $got instead of $want: ${*/#$WORK*ogee/ogee}: $(tail -n 3 "$TEST_DIR/expect.log")"
}

# json FILTER   of the last `expect` must be true
json() {
    jq -e "$1" "$TEST_DIR/expect.log" >/dev/null || give_up "not so: $1 in $(tr -d '\n ' <"$TEST_DIR/expect.log" | cut -c1-400)"
}

test_volume_commands() {
    cluster_up
    expect 0 "$OGEE" volume create one --size 1GiB --stripe-unit 64KiB --stripe-count 8 --owner me -o json
    json '.name == "one" and .size_bytes == 1073741824 and .replicas == 3 and .stripe_unit_bytes == 65536 and .stripe_count == 8 and .owner == "me" and (.attached | not)'
    expect 1 "$OGEE" volume create one --size 1GiB
    expect 2 "$OGEE" volume create two --size enormous
    expect 0 "$OGEE" volume create two --size 100MiB
    expect 0 "$OGEE" volume ls -o json
    json '[.volumes[].name] | sort == ["one", "two"]'
    expect 0 "$OGEE" volume locate one -o json
    json '(.chunks | length == 64) and ([.chunks[].index] == [range(64)])'
    json 'all(.chunks[]; (.copyset > 0) and ([.leader] + .followers | sort == ["cs1", "cs2", "cs3"]))'
    json '[.chunks[].copyset] | unique | length == 8'

    export_start one
    expect 0 "$OGEE" volume show one -o json
    json '.attached and .attached_host != ""'
    expect 1 "$OGEE" volume rm one --yes
    [ "$(nbdinfo --size "$URI")" = 1073741824 ]
    qemu-io -f raw -c 'write -P 7 1000M 1M' "$URI" >/dev/null
    expect 0 "$OGEE" volume resize one --size 3GiB -o json
    json '.size_bytes == 3221225472'
    # shellcheck disable=SC2317 # called by wait_for
    grown() { [ "$(nbdinfo --size "$URI")" = 3221225472 ]; }
    wait_for 15 grown || give_up "the export shows the old size 15 s after the resize"
    qemu-io -f raw -c 'read -P 7 1000M 1M' -c 'write -P 9 3071M 1M' -c 'read -P 9 3071M 1M' \
        -c 'read -P 0 2000M 1M' "$URI" >"$TEST_DIR/io.log"
    expect 1 "$OGEE" volume resize one --size 1GiB
    export_stop

    expect 2 "$OGEE" volume rm one
    expect 0 "$OGEE" volume rm one --yes
    expect 4 "$OGEE" volume show one
    expect 4 "$OGEE" volume rm one --yes
    expect 0 "$OGEE" volume ls -o json
    json '[.volumes[].name] == ["two"]'
    # Nothing of a removed volume comes back under its name.
    create_volume one --size 1GiB
    export_start one
    qemu-io -f raw -c 'read -P 0 1000M 1M' "$URI" >"$TEST_DIR/io.log" || give_up "a new volume shows a removed one's data"
}

# What this host lacks, for users with less than it has.
test_doctor() {
    local user=()
    # Its own words only, for jq.
    export OGEE_LOG=off
    verdict() { jq -r --arg name "$1" '.checks[] | select(.name == $name) | .verdict' "$TEST_DIR/expect.log"; }
    expect 0 "$OGEE" doctor --check kernel --check io-uring -o json
    json '.verdict == "ok" and ([.checks[].name] == ["kernel", "io-uring"]) and all(.checks[]; .found != "" and .needed != "" and .fix == null)'
    expect 2 "$OGEE" doctor --check no-such-check
    if [ ! -d /sys/class/infiniband ]; then
        expect 0 "$OGEE" doctor --check rdma-device --check rdma-build
        expect 1 "$OGEE" doctor --rdma -o json
        json '[.checks[] | select(.name == "rdma-device")] | .[0] | .verdict == "failed" and (.commands | length > 0)'
        json '.rdma or ([.checks[] | select(.name == "rdma-build") | .commands[]] | any(contains("--features rdma")))'
    fi
    need_root
    user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
    "${user[@]}" test -x "$OGEE" || give_skip "another user cannot reach $WORK: set TMPDIR"
    expect 0 prlimit --memlock=8388608:8388608 --nofile=4096 "${user[@]}" "$OGEE" doctor
    expect 3 prlimit --memlock=8388608:8388608 --nofile=256:256 "${user[@]}" "$OGEE" doctor -o json
    [ "$(verdict open-files)$(verdict memlock)" = warningok ] || give_up "few descriptors: $(tr -d '\n ' <"$TEST_DIR/expect.log" | cut -c1-400)"
    # The check says so, and the executor does not start: it is not a guess.
    expect 1 prlimit --memlock=65536:65536 --nofile=4096 "${user[@]}" "$OGEE" doctor -o json
    [ "$(verdict memlock)$(verdict io-uring)" = failedfailed ] || give_up "little memory: $(tr -d '\n ' <"$TEST_DIR/expect.log" | cut -c1-400)"
    expect 1 prlimit --memlock=65536:65536 --nofile=4096 "${user[@]}" "$OGEE" doctor --fix-script
    sh -n "$TEST_DIR/expect.log" || give_up "the script is none"
    grep -q '^printf .*memlock unlimited' "$TEST_DIR/expect.log" || give_up "no fix in the script: $(cat "$TEST_DIR/expect.log")"
    [ ! -e /etc/security/limits.d/60-ogee.conf ] || give_up "the script was run"
}

# counter NAME FAMILY   of a daemon, all labels together
counter() {
    metrics_of "$1" | awk -v family="$2" '{ split($1, name, "{") } name[1] == family { sum += $2 } END { printf "%d", sum }'
}

# Chunkservers have told what changed more often than all.
tells_changes() {
    metrics_of mds1 | awk '/^ogee_mds_reports_total.*"changes"/ { changes = $2 } /^ogee_mds_reports_total.*"whole"/ { whole = $2 } END { exit !(whole > 0 && changes > whole) }'
}

test_status_and_metrics() {
    cluster_up
    expect 0 "$OGEE" status -o json
    json '.health == "OK" and .codes == []'
    create_volume load --size 256MiB
    local name family stage before=()
    for name in $(chunkservers); do before+=("$(counter "$name" ogee_chunkserver_log_seconds_count)"); done
    "$OGEE" bench load --rw randrw --rwmixread 50 --iodepth 16 --runtime 3 -o json >"$TEST_DIR/bench.json"
    sleep 2

    local at=0
    for name in $(chunkservers); do
        metrics_of "$name" >"$TEST_DIR/$name.prom"
        if command -v promtool >/dev/null; then
            # 3 is an opinion on names.
            promtool check metrics <"$TEST_DIR/$name.prom" >"$TEST_DIR/promtool.log" 2>&1 || [ $? = 3 ] ||
                give_up "promtool: $(head -n 3 "$TEST_DIR/promtool.log")"
        fi
        grep -q '^# TYPE ogee_chunkserver_log_seconds histogram' "$TEST_DIR/$name.prom" || give_up "no histogram of the log on $name"
        [ "$(counter "$name" ogee_chunkserver_log_seconds_count)" -gt "${before[at]}" ] || give_up "the log's histogram of $name does not move"
        at=$((at + 1))
    done
    # Leaders are spread, so these move somewhere.
    for stage in queue log replicate apply write read; do
        family=ogee_chunkserver_${stage}_seconds
        awk -v family="${family}_count" '{ split($1, n, "{") } n[1] == family { s += $2 } END { exit !(s > 0) }' \
            "$TEST_DIR"/cs*.prom || give_up "$family does not move"
        grep -qh "^${family}_bucket{.*le=" "$TEST_DIR"/cs*.prom || give_up "$family has no buckets"
    done
    metrics_of mds1 | grep -q '^ogee_mds_volumes 1$' || give_up "mds1 does not count the volume"
    [ "$(counter mds1 ogee_mds_heartbeats_total)" -gt 0 ] || give_up "mds1 counts no heartbeats"
    wait_for 30 tells_changes || give_up "chunkservers tell all, each time: $(metrics_of mds1 | grep ogee_mds_reports)"

    node_kill cs2
    # shellcheck disable=SC2317 # called by wait_for
    not_ok() { ! is_healthy; }
    wait_for 15 not_ok || give_up "status is OK 15 s after a node was killed"
    expect 3 "$OGEE" status -o json
    json '.health != "OK" and (.codes | length > 0) and all(.codes[]; (.code | length > 0) and .count >= 1)'
    json '.servers.online == 2'
    node_start cs2
    wait_healthy
    node_kill mds1
    expect 1 "$OGEE" status
    node_start mds1
    wait_healthy
}

# refused NAME PATTERN CONF   a chunkserver with this configuration ends with an error that says so
refused() {
    local status=0
    timeout 20 "$OGEE" chunkserver --config "$3" >"$TEST_DIR/$1.log" 2>&1 || status=$?
    case $status in
    0 | 124) give_up "$1: not refused (status $status)" ;;
    esac
    grep -q "$2" "$TEST_DIR/$1.log" || give_up "$1: the error does not name $2: $(tail -n 3 "$TEST_DIR/$1.log")"
    sed 's/^/   /' "$TEST_DIR/$1.log" | grep -A1 'error\[' | cut -c1-200
}

test_devices_refused() {
    cluster_up
    local mds=${OGEE_MDS:?}
    # conf_for PATH FILE   a further chunkserver on that device
    conf_for() {
        printf 'name = "cs9"\nzone = "zone9"\nlisten = ["127.0.0.1:0"]\nmds = ["%s"]\n\n[[device]]\npath = "%s"\n' \
            "$mds" "$1" >"$2"
    }
    conf_for "$DIR/data/cs1-0.store" "$TEST_DIR/twice.toml"
    refused twice "$DIR/data/cs1-0.store" "$TEST_DIR/twice.toml"
    node_pid cs1 >/dev/null || give_up "the owner of the device died"

    local image=$TEST_DIR/foreign.img before
    truncate -s 1G "$image"
    mkfs.ext4 -q -F "$image"
    before=$(sha256sum <"$image")
    conf_for "$image" "$TEST_DIR/foreign.toml"
    refused foreign "$image" "$TEST_DIR/foreign.toml"
    grep -qi 'ext' "$TEST_DIR/foreign.log" || give_up "the error does not say what was found"
    [ "$(sha256sum <"$image")" = "$before" ] || give_up "a refused device was written to"

    # A mounted one is refused for that, before anybody looks at what it holds.
    if [ "$(id -u)" = 0 ] && [ -c /dev/loop-control ]; then
        LOOP=$(losetup -f --show "$image")
        defer losetup -d "$LOOP"
        MNT=$TEST_DIR/mnt
        mkdir "$MNT"
        defer umount "$MNT"
        mount "$LOOP" "$MNT"
        conf_for "$LOOP" "$TEST_DIR/mounted.toml"
        refused mounted "$LOOP is mounted at $MNT" "$TEST_DIR/mounted.toml"
    fi
    wait_healthy 5
}

# ---- clients ----------------------------------------------------------------------------------

test_clients() {
    cluster_up
    local size=100663296 source=$TEST_DIR/source.raw
    # Data, a hole, data, a hole.
    truncate -s "$size" "$source"
    dd if=/dev/urandom of="$source" bs=1M count=24 conv=notrunc status=none
    dd if=/dev/urandom of="$source" bs=1M count=8 seek=60 conv=notrunc status=none
    create_volume disk --size "$size"
    export_start disk

    qemu-img info "$URI" | grep -q 'virtual size: 96 MiB'
    qemu-img convert -n -f raw -O raw "$source" "$URI"
    qemu-img compare -f raw -F raw "$source" "$URI"
    qemu-img convert -f raw -O qcow2 "$URI" "$TEST_DIR/out.qcow2"
    qemu-img compare -f raw -F qcow2 "$source" "$TEST_DIR/out.qcow2"
    echo "   qemu-img: convert in and out, compare"

    [ "$(nbdinfo --size "$URI")" = "$size" ]
    nbdinfo --list "nbd+unix://?socket=$TEST_DIR/disk.sock" | grep -q 'export="disk"'
    nbdinfo --map --json "$URI" | jq -e --argjson size "$size" '
        (map(.length) | add == $size) and any(.[]; .type == 0) and any(.[]; .type == 3)' >/dev/null ||
        give_up "nbdinfo --map does not show data and holes: $(nbdinfo --map --json "$URI" | tr -d '\n' | cut -c1-300)"
    local can
    for can in write flush fua trim zero multi-conn; do
        nbdinfo --can "$can" "$URI" || give_up "the export cannot $can"
    done
    echo "   nbdinfo: size, list, map, capabilities"

    nbdcopy "$URI" "$TEST_DIR/copy.raw"
    cmp "$source" "$TEST_DIR/copy.raw"
    qemu-io -f raw -c "write -z 0 $size" "$URI" >/dev/null
    nbdcopy "$TEST_DIR/copy.raw" "$URI"
    nbdcopy "$URI" - | cmp - "$source"
    echo "   nbdcopy: out, in, out"
    export_stop

    create_volume scratch --size 256MiB
    export_start scratch
    qemu-img bench -f raw -w -c 4000 -d 32 -s 4096 "$URI" | tail -n 1 | sed 's/^/   qemu-img bench write: /'
    qemu-img bench -f raw -c 4000 -d 32 -s 4096 "$URI" | tail -n 1 | sed 's/^/   qemu-img bench read: /'
    # Patterns; a part of a block inside a pattern; FUA; zeros and discards, aligned and not.
    qemu-io -f raw \
        -c 'write -P 0xab 1M 64k' -c 'read -P 0xab 1M 64k' \
        -c 'write -P 0xcd 1050112 512' -c 'read -P 0xcd 1050112 512' -c 'read -P 0xab 1M 1536' -c 'read -P 0xab 1050624 62k' \
        -c 'write -f -P 0x11 8M 4k' -c 'flush' -c 'read -P 0x11 8M 4k' \
        -c 'write -P 0x22 16M 17M' -c 'read -P 0x22 16M 17M' \
        -c 'write -z 20M 1M' -c 'read -P 0 20M 1M' -c 'read -P 0x22 19M 1M' -c 'read -P 0x22 21M 1M' \
        -c 'write -z 24117760 1536' -c 'read -P 0 24117760 1536' -c 'read -P 0x22 24119296 2560' \
        -c 'discard 25M 1M' -c 'read -P 0 25M 1M' -c 'read -P 0x22 24M 1M' -c 'read -P 0x22 26M 1M' \
        "$URI" >"$TEST_DIR/io.log" || give_up "qemu-io: $(grep -m1 -i 'fail' "$TEST_DIR/io.log")"
    ! grep -qi 'verification failed' "$TEST_DIR/io.log" || give_up "qemu-io: $(grep -m1 -i 'failed' "$TEST_DIR/io.log")"
    # Many in flight, over several connections' worth of overlapping parts of blocks.
    qemu-io -f raw -c 'aio_write -P 1 40M 1M' -c 'aio_write -P 2 41M 1M' -c 'aio_write -P 3 42M 1M' -c 'aio_flush' \
        -c 'read -P 1 40M 1M' -c 'read -P 2 41M 1M' -c 'read -P 3 42M 1M' "$URI" >"$TEST_DIR/io.log"
    echo "   qemu-io: patterns, parts of blocks, FUA, zeroes, discard"
    export_stop
    copysets_agree
}

# ---- the client library -----------------------------------------------------------------------

# libogee as a program finds it, from C, from C++, and linked statically; the Rust example beside it.
test_capi() {
    local sources=$REPO/ffi/capi flags load victim pids at
    local strict=(-Wall -Wextra -Werror -pedantic -g -O1) programs=$TEST_DIR/programs
    need_packages gcc g++ binutils pkg-config
    (OGEE_SKIP_BUILD=1 "$REPO/scripts/install-libogee" "$TEST_DIR/installed" >"$TEST_DIR/install.log" 2>&1) || give_up "$(tail -n 5 "$TEST_DIR/install.log")"
    mkdir "$programs"
    export PKG_CONFIG_PATH=$TEST_DIR/installed/lib/pkgconfig LD_LIBRARY_PATH=$TEST_DIR/installed/lib
    read -ra flags <<<"$(pkg-config --cflags --libs ogee)"
    cc "${strict[@]}" -o "$programs/blocks" "$sources/examples/blocks.c" "${flags[@]}"
    cc "${strict[@]}" -o "$programs/libogee_test" "$sources/tests/c/libogee_test.c" "${flags[@]}" -lpthread
    g++ -x c++ "${strict[@]}" -o "$programs/libogee_test_cxx" "$sources/tests/c/libogee_test.c" "${flags[@]}" -lpthread
    cc "${strict[@]}" -fsanitize=address,undefined -o "$programs/libogee_test_asan" "$sources/tests/c/libogee_test.c" "${flags[@]}" -lpthread
    read -ra flags <<<"$(pkg-config --static --cflags --libs ogee | sed "s|-logee|$TEST_DIR/installed/lib/libogee.a|")"
    cc "${strict[@]}" -o "$programs/blocks_static" "$sources/examples/blocks.c" "${flags[@]}"
    if ldd "$programs/blocks_static" | grep libogee; then give_up "the static one is not"; fi
    # Nothing but the calls is exported, and programs ask for the version that they were built with.
    if nm -D --defined-only "$TEST_DIR/installed/lib/libogee.so" | awk '{ print $3 }' | grep -v '^ogee_'; then give_up "more is exported than the header says"; fi
    readelf -d "$programs/blocks" | grep -q 'NEEDED.*libogee\.so\.0' || give_up "blocks does not ask for libogee.so.0"

    cluster_up
    create_volume one --size 1GiB
    create_volume other --size 256MiB
    for at in "$programs/blocks" "$programs/blocks_static" "$BLOCKS_RS"; do
        "$at" other >"$TEST_DIR/blocks.log" 2>&1 || give_up "${at##*/}: $(tail -n 3 "$TEST_DIR/blocks.log")"
        grep -q '^wrote and read' "$TEST_DIR/blocks.log" || give_up "${at##*/} said $(cat "$TEST_DIR/blocks.log")"
    done
    # A child of fork leaves its parent's objects where they are: no leak.
    for at in libogee_test libogee_test_cxx libogee_test_asan; do
        ASAN_OPTIONS=detect_leaks=0 "$programs/$at" calls one other >"$TEST_DIR/calls.log" 2>&1 || give_up "$at: $(tail -n 5 "$TEST_DIR/calls.log")"
    done
    echo "   blocks in C, static, in Rust; all calls from C, from C++, with AddressSanitizer"
    if [ "$(id -u)" = 0 ]; then
        at=0
        prlimit --memlock=65536:65536 setpriv --reuid=65534 --regid=65534 --clear-groups "$programs/blocks" other >"$TEST_DIR/little.log" 2>&1 || at=$?
        [ "$at" = 1 ] || give_up "with little memory to lock it ended with $at"
        grep -q 'open the client: SYSTEM: .*RLIMIT_MEMLOCK.*try: .*ogee doctor' "$TEST_DIR/little.log" || give_up "with little memory to lock it said $(cat "$TEST_DIR/little.log")"
    fi

    "$programs/libogee_test" load one "$(ci_or_full 14 60)" >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    load=$!
    defer end_process "$load"
    sleep 3
    victim=$(volume_leader one)
    node_kill "$victim"
    sleep 5
    node_start "$victim"
    wait "$load" || give_up "load: $(tail -n 3 "$TEST_DIR/load.log")"
    jq -e '.writes > 0' "$TEST_DIR/load.json" >/dev/null
    echo "   killed $victim under it: $(jq .writes "$TEST_DIR/load.json") writes"
    failover_within "$(jq .wait_max_ms "$TEST_DIR/load.json")" "of one write"
    wait_healthy

    "$programs/libogee_test" resize other >"$TEST_DIR/resize.out" 2>"$TEST_DIR/resize.log" &
    load=$!
    defer end_process "$load"
    wait_for 20 grep -q ready "$TEST_DIR/resize.out" || give_up "resize: $(cat "$TEST_DIR/resize.log")"
    "$OGEE" volume resize other --size 512MiB >/dev/null
    wait "$load" || give_up "resize: $(cat "$TEST_DIR/resize.log")"
    [ "$(tail -n 1 "$TEST_DIR/resize.out")" = 536870912 ] || give_up "the notice said $(tail -n 1 "$TEST_DIR/resize.out")"

    # Every chunkserver stands still: closing with a limit ends all the same.
    mkfifo "$TEST_DIR/go"
    "$programs/libogee_test_asan" stuck one <>"$TEST_DIR/go" >"$TEST_DIR/stuck.out" 2>"$TEST_DIR/stuck.log" &
    load=$!
    defer end_process "$load"
    wait_for 20 grep -q ready "$TEST_DIR/stuck.out" || give_up "stuck: $(cat "$TEST_DIR/stuck.log")"
    mapfile -t pids < <(for at in $(chunkservers); do node_pid "$at"; done)
    kill -STOP "${pids[@]}"
    defer kill -CONT "${pids[@]}"
    echo go >"$TEST_DIR/go"
    # shellcheck disable=SC2317 # called by wait_for
    closed() { [ "$(grep -c ready "$TEST_DIR/stuck.out")" = 2 ] || process_gone "$load"; }
    wait_for 30 closed || give_up "stuck does not close: $(cat "$TEST_DIR/stuck.out")"
    # Late answers meet nobody: the memory of those requests is gone.
    kill -CONT "${pids[@]}"
    sleep 2
    echo go >"$TEST_DIR/go"
    wait "$load" || give_up "stuck: $(head -n 20 "$TEST_DIR/stuck.log")"
    echo "   with every chunkserver stopped $(grep closing "$TEST_DIR/stuck.out")"
    wait_healthy
    copysets_agree
}

# ---- a database -------------------------------------------------------------------------------

# pg COMMAND...   as PostgreSQL's user, with the socket of the test's server
pg() {
    (exec_pg "$@")
}

exec_pg() {
    cd "$PG_RUN" || exit 1
    exec setpriv --reuid=postgres --regid=postgres --init-groups \
        env "HOME=$PG_RUN" "PGHOST=$PG_RUN" PGPORT=5432 "PGDATA=$MNT/pg" "$PG_BIN/$1" "${@:2}"
}

pg_start() {
    pg pg_ctl -s -w -t 60 -l "$PG_RUN/postgres.log" -o "-k $PG_RUN -c listen_addresses=" \
        -o '-c max_wal_size=256MB -c checkpoint_timeout=30s -c shared_buffers=64MB' start
}

pg_stop() {
    [ ! -e "$MNT/pg/postmaster.pid" ] || pg pg_ctl -s -w -t 60 -m fast stop || pg pg_ctl -s -w -t 20 -m immediate stop
}

# kill_in_turn VOLUME ROUNDS SLOT PID   kills the leading process, starts it again, then each of the
# others, one per SLOT seconds, while the process PID works
kill_in_turn() {
    local round name first names started
    for ((round = 1; round <= $2; round++)); do
        first=$(volume_leader "$1")
        mapfile -t names < <(echo "$first" && chunkservers | grep -vxF "$first")
        for name in "${names[@]}"; do
            started=$SECONDS
            echo "   round $round: kill $name$([ "$name" != "$first" ] || echo ' (leads most)')"
            node_kill "$name"
            sleep 5
            node_start "$name"
            wait_healthy
            process_alive "$4" || give_up "the load ended before the kills did"
            while [ $((SECONDS - started)) -lt "$3" ]; do sleep 0.5; done
        done
    done
}

# The longest time between two finished transactions, from pgbench's own log.
longest_gap_ms() {
    sort -n -k5,5 -k6,6 "$@" | awk '{ t = $5 * 1e6 + $6; if (last && t - last > gap) gap = t - last; last = t } END { printf "%d", gap / 1000 }'
}

test_postgres() {
    local fs=$1 rounds scale slot=19 seconds status=0
    rounds=$(ci_or_full 1 10) scale=$(ci_or_full 5 20)
    seconds=$((rounds * 3 * slot + 3))
    need_root
    PG_BIN=$(find /usr/lib/postgresql -maxdepth 2 -name bin | sort -V | tail -n 1)
    PG_RUN=$TEST_DIR/pg
    install -d -o postgres "$PG_RUN"
    cluster_up
    create_volume pg --size 4GiB
    export_start pg
    disk_attach
    disk_mount "$fs"
    chown postgres "$MNT"
    pg initdb --data-checksums >"$TEST_DIR/initdb.log" 2>&1
    defer pg_stop
    pg_start
    pg createdb bench
    pg pgbench -q -i -s "$scale" bench >"$TEST_DIR/init.log" 2>&1
    exec_pg pgbench -c 4 -T "$seconds" -P 5 --log --log-prefix="$PG_RUN/tx" bench >"$TEST_DIR/pgbench.log" 2>&1 &
    local load=$!
    defer end_process "$load"
    sleep 2
    kill_in_turn pg "$rounds" "$slot" "$load"
    wait "$load" || status=$?
    [ "$status" = 0 ] || give_up "pgbench ended with $status: $(tail -n 3 "$TEST_DIR/pgbench.log")"
    grep -q '^number of failed transactions: 0 ' "$TEST_DIR/pgbench.log" || give_up "pgbench: $(grep failed "$TEST_DIR/pgbench.log")"
    grep -E '^(number of transactions|tps)' "$TEST_DIR/pgbench.log" | sed 's/^/   pgbench: /'
    failover_within "$(longest_gap_ms "$PG_RUN"/tx.*)" "between transactions"

    local sums
    sums=$(pg psql -qAt -d bench -c 'select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)
        and (select sum(bbalance) from pgbench_branches) = (select sum(tbalance) from pgbench_tellers)')
    [ "$sums" = t ] || give_up "the accounts do not add up"
    pg_stop || give_up "PostgreSQL does not stop; the export's last word: $(tail -n 1 "$TEST_DIR/export-pg.log" | cut -c1-300)"
    pg pg_checksums --check >"$TEST_DIR/checksums.log" 2>&1 || give_up "pg_checksums: $(tail -n 3 "$TEST_DIR/checksums.log")"
    disk_unmount
    disk_check "$fs"
    disk_detach
    export_stop
    copysets_agree
}

# ---- kills ------------------------------------------------------------------------------------

# How long a write waits for a new leader.
test_failover() {
    cluster_up
    create_volume fast --size 1GiB
    export_start fast
    local load victim kills
    kills=$(ci_or_full 2 10)
    writer_starts 16
    for ((; kills > 0; kills--)); do
        sleep 3
        victim=$(volume_leader fast)
        echo "   kill $victim"
        node_kill "$victim"
        sleep 9
        node_start "$victim"
        wait_healthy
    done
    kill "$load"
    wait "$load" || give_up "the writer: $(tail -n 2 "$TEST_DIR/load.log")"
    echo "   $(cat "$TEST_DIR/load.json")"
    jq -e '.errors == 0 and .unanswered == 0 and (.disconnected | not) and .acked > 0' "$TEST_DIR/load.json" >/dev/null || give_up "I/O errors: $(cat "$TEST_DIR/load.json")"
    failover_within "$(jq .wait_max_ms "$TEST_DIR/load.json")" "of one write"
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "verify: $(cat "$TEST_DIR/verify.json")"
    copysets_agree
}

# exec_fio_verify SEED SECONDS LOG   writes at a rate that takes about SECONDS, then reads all back. A
# block of an earlier run has another seed in its header, so what is stale is found too.
exec_fio_verify() {
    local rate=2000
    exec fio --name=verify --ioengine=nbd --uri="$URI" --rw=randwrite --bs=4k --iodepth=32 --size="$(($2 * rate * 4096))" \
        --rate_iops="$rate" --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed="$1" --output-format=json --output="$3" >"$3.log" 2>&1
}

fio_wait_ms() {
    jq '[.jobs[0].read.clat_ns.max, .jobs[0].write.clat_ns.max] | max / 1000000 | floor' "$1"
}

test_fio_kills() {
    cluster_up
    create_volume disk --size 1GiB
    export_start disk
    RANDOM=$SEED
    local rounds round victim load longest=0 wait_ms
    rounds=$(ci_or_full 5 50)
    for ((round = 1; round <= rounds; round++)); do
        exec_fio_verify "$((SEED + round))" 5 "$TEST_DIR/fio.$round" &
        load=$!
        defer end_process "$load"
        local before=$((RANDOM % 6000)) down=$((500 + RANDOM % 3000)) pick=$((1 + RANDOM % 3))
        victim=cs$pick
        # The first round hits where it hurts most.
        [ "$round" != 1 ] || victim=$(volume_leader disk)
        sleep_ms "$before"
        echo "   round $round: kill $victim after $before ms, for $down ms"
        node_kill "$victim"
        sleep_ms "$down"
        node_start "$victim"
        wait "$load" || give_up "fio in round $round: $(tail -n 4 "$TEST_DIR/fio.$round.log")"
        jq -e '.jobs[0] | .error == 0 and .read.total_ios == .write.total_ios and .write.total_ios > 0' "$TEST_DIR/fio.$round" >/dev/null ||
            give_up "fio in round $round: $(jq -c '.jobs[0] | {error, read: .read.total_ios, write: .write.total_ios}' "$TEST_DIR/fio.$round")"
        wait_ms=$(fio_wait_ms "$TEST_DIR/fio.$round")
        [ "$wait_ms" -le "$longest" ] || longest=$wait_ms
        wait_healthy
    done
    failover_within "$longest" "of one request"
    copysets_agree
}

# Every process dies at once, the client's side too; what was acknowledged is there.
test_kill_all() {
    cluster_up
    create_volume disk --size 512MiB
    RANDOM=$SEED
    local rounds round load after
    rounds=$(ci_or_full 5 50)
    for ((round = 1; round <= rounds; round++)); do
        export_start disk
        [ "$round" = 1 ] || (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" ||
            give_up "round $round: $(cat "$TEST_DIR/verify.json")"
        writer_starts 32 "$((SEED + round))"
        after=$((500 + RANDOM % 3000))
        sleep_ms "$after"
        kill_everything
        wait "$load" || give_up "the writer: $(tail -n 2 "$TEST_DIR/load.log")"
        jq -e '.errors == 0 and .disconnected and .acked > 0' "$TEST_DIR/load.json" >/dev/null || give_up "the writer saw $(cat "$TEST_DIR/load.json")"
        echo "   round $round: all killed after $after ms, $(jq -c '{acked, unanswered}' "$TEST_DIR/load.json")"
        "$OGEE" dev up --dir "$DIR" >>"$TEST_DIR/up.log" 2>&1 || give_up "round $round: dev up: $(tail -n 3 "$TEST_DIR/up.log")"
        copysets_agree
    done
    export_start disk
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "at the end: $(cat "$TEST_DIR/verify.json")"
    echo "   $(cat "$TEST_DIR/verify.json")"
}

kill_everything() {
    local name pid pids=("$EXPORT_PID")
    for name in mds1 $(chunkservers); do
        pid=$(node_pid "$name") || give_up "$name does not run: $(tail -n 3 "$DIR/logs/$name.log")"
        pids+=("$pid")
    done
    kill -9 "${pids[@]}"
    wait "$EXPORT_PID" 2>/dev/null || true
    for pid in "${pids[@]}"; do
        wait_for 10 process_gone "$pid"
    done
}

# The metadata server is not on the way of I/O, not even when a leader dies.
test_mds_down() {
    cluster_up
    create_volume disk --size 1GiB
    export_start disk
    local load victim
    victim=$(volume_leader disk)
    exec_fio_verify "$SEED" 14 "$TEST_DIR/fio.mds" &
    load=$!
    defer end_process "$load"
    sleep 2
    node_kill mds1
    sleep 3
    echo "   mds1 is down; kill $victim, which leads most"
    node_kill "$victim"
    wait "$load" || give_up "fio: $(tail -n 4 "$TEST_DIR/fio.mds.log")"
    jq -e '.jobs[0] | .error == 0 and .write.total_ios > 0' "$TEST_DIR/fio.mds" >/dev/null
    failover_within "$(fio_wait_ms "$TEST_DIR/fio.mds")" "of one request"
    # A chunkserver comes back without the metadata server, too.
    exec_fio_verify "$((SEED + 1))" 6 "$TEST_DIR/fio.back" &
    load=$!
    defer end_process "$load"
    node_start "$victim"
    wait "$load" || give_up "fio: $(tail -n 4 "$TEST_DIR/fio.back.log")"
    node_start mds1
    wait_healthy
    export_stop
    copysets_agree
}

# ---- operating the metadata servers -----------------------------------------------------------

# mds_address NAME
mds_address() {
    sed -n 's/^listen = "\(.*\)"$/\1/p' "$DIR/conf/$1.toml"
}

has_code() {
    local status
    # Degraded is an answer, too.
    status=$("$OGEE" status -o json 2>/dev/null) || [ -n "$status" ] || return 1
    jq -e --arg code "$1" 'any(.codes[]; .code == $code)' <<<"$status"
}

has_no_code() {
    local status
    status=$("$OGEE" status -o json 2>/dev/null) || [ -n "$status" ] || return 1
    jq -e --arg code "$1" 'all(.codes[]; .code != $code)' <<<"$status"
}

all_online() {
    "$OGEE" server ls -o json | jq -e '.servers | length == 3 and all(.online)'
}

knows_stranger() {
    "$OGEE" mds strangers -o json | jq -e --argjson id "$1" 'any(.volumes[]; .id == $id) and .not_heard == []'
}

volume_epoch() {
    "$OGEE" volume show "$1" -o json | jq .epoch
}

agree_for_a_while() {
    for _ in 1 2 3; do
        "$OGEE" copyset check >/dev/null 2>&1 || return 1
        sleep 2
    done
}

no_stranger() {
    "$OGEE" mds strangers -o json | jq -e '.volumes == []'
}

# The metadata is lost, and comes back from a backup that is older than what chunkservers hold.
test_mds_restore() {
    cluster_up --log-size 128MiB --store-size 2GiB
    create_volume old --size 256MiB
    export_start old
    qemu-io -f raw -c 'write -P 1 0 4M' -c 'write -P 2 100M 1M' -c flush "$URI" >"$TEST_DIR/io.log"
    export_stop
    expect 0 "$OGEE" mds backup "$TEST_DIR/backup"
    expect 1 "$OGEE" mds backup "$TEST_DIR/backup"
    expect 0 "$OGEE" mds backup --force "$TEST_DIR/backup"
    expect 0 "$OGEE" mds backup --check "$TEST_DIR/backup" -o json
    json '.volumes == [{"name": "old", "size_bytes": 268435456}] and .chunkservers == 3 and .applied > 0'
    sed 's/"old"/"odd"/' "$TEST_DIR/backup" >"$TEST_DIR/damaged"
    expect 1 "$OGEE" mds backup --check "$TEST_DIR/damaged"

    # What the backup does not know: attachments, a new size, a volume.
    local epoch id pid live
    "$OGEE" volume resize old --size 512MiB >/dev/null
    for _ in 1 2 3; do
        export_start old
        qemu-io -f raw -c 'write -P 3 200M 1M' -c flush "$URI" >"$TEST_DIR/io.log"
        export_stop
    done
    epoch=$(volume_epoch old)
    create_volume new --size 64MiB
    id=$("$OGEE" volume show new -o json | jq .id)
    export_start new
    qemu-io -f raw -c 'write -P 4 0 40M' -c flush "$URI" >"$TEST_DIR/io.log"
    live=$EXPORT_PID

    node_kill mds1
    expect 1 "$OGEE" mds restore "$TEST_DIR/backup" --data-dir "$DIR/data/mds1" --address "$(mds_address mds1)"
    mv "$DIR/data/mds1" "$TEST_DIR/lost"
    expect 1 "$OGEE" mds restore "$TEST_DIR/damaged" --data-dir "$DIR/data/mds1" --address "$(mds_address mds1)"
    expect 0 "$OGEE" mds restore "$TEST_DIR/backup" --data-dir "$DIR/data/mds1" --address "$(mds_address mds1)"
    node_start mds1
    wait_for 30 all_online || give_up "chunkservers do not come back: $("$OGEE" server ls)"
    has_code OGEE-1020 >/dev/null || give_up "status does not say that the metadata was restored: $("$OGEE" status)"

    # A user that was attached goes on, also with a volume that nobody knows.
    qemu-io -f raw -c 'read -P 4 0 40M' -c 'write -P 5 0 1M' -c 'read -P 5 0 1M' "$URI" >"$TEST_DIR/io.log" ||
        give_up "a volume that is attached does not go on: $(cat "$TEST_DIR/io.log")"
    EXPORT_PID=$live
    kill "$live"
    wait_for 20 process_gone "$live" || give_up "the export of a volume that nobody knows does not end"

    export_start old
    [ "$(volume_epoch old)" -gt "$((epoch + 1000))" ] || give_up "epoch $(volume_epoch old) is too near to $epoch"
    qemu-io -f raw -c 'read -P 1 0 4M' -c 'read -P 2 100M 1M' -c 'read -P 3 200M 1M' -c 'write -P 6 8M 1M' -c flush \
        -c 'read -P 6 8M 1M' "$URI" >"$TEST_DIR/io.log" || give_up "the old volume: $(cat "$TEST_DIR/io.log")"
    export_stop
    echo "   restored: epoch $epoch at the loss, $(volume_epoch old) now; the old volume reads and writes"

    # The volume that is not known is reported, kept, and freed on an operator's word only.
    wait_for 30 knows_stranger "$id" || give_up "volume $id is not reported: $("$OGEE" mds strangers -o json)"
    has_code OGEE-1021 >/dev/null || give_up "status does not tell of volume $id"
    expect 1 "$OGEE" mds discard "$id" --yes
    expect 0 "$OGEE" mds accept-restore
    wait_for 20 has_no_code OGEE-1020 || give_up "accepted, and status says otherwise"
    sleep 5
    knows_stranger "$id" >/dev/null || give_up "volume $id went without a word"
    create_volume more --size 64MiB
    [ "$("$OGEE" volume show more -o json | jq .id)" -gt "$id" ] || give_up "a volume id is given twice"
    expect 0 "$OGEE" mds discard "$id" --yes
    wait_for 90 no_stranger || give_up "volume $id is still there: $("$OGEE" mds strangers -o json)"
    wait_healthy
    # Each replica frees the chunks at its own pace: until then their contents differ.
    wait_for 60 agree_for_a_while || give_up "volume $id is not freed everywhere"
    copysets_agree
    "$OGEE" events -o json | jq -e 'any(.events[]; .kind == "restore_accepted")' >/dev/null ||
        give_up "no event of the acceptance: $("$OGEE" events)"
}

# mds_conf ID   of one that is to be taken in; its own addresses
mds_conf() {
    local address
    address=$("$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print("127.0.0.1:%d" % s.getsockname()[1])')
    printf 'data_dir = "%s"\nlisten = "%s"\ncluster = "dev"\nid = %s\njoin = true\n' \
        "$DIR/data/mds$1" "$address" "$1" >"$DIR/conf/mds$1.toml"
}

leads() {
    [ "$(mds_leader)" = "mds$1" ]
}

# One metadata server becomes three, the first one leaves, and nobody is told: I/O goes on, and chunkservers
# and the export find the others by what they have learnt.
test_mds_members() {
    cluster_up --log-size 128MiB --store-size 2GiB
    create_volume disk --size 256MiB
    export_start disk
    local load first
    first=$(mds_address mds1)
    exec_fio_verify "$SEED" 40 "$TEST_DIR/fio.members" &
    load=$!
    defer end_process "$load"
    local id
    for id in 2 3; do
        mds_conf "$id"
        node_start "mds$id"
        expect 0 "$OGEE" mds add "$id" --address "$(mds_address "mds$id")"
    done
    expect 0 "$OGEE" mds ls -o json
    json '[.members[] | {id, reachable}] == [{"id": 1, "reachable": true}, {"id": 2, "reachable": true}, {"id": 3, "reachable": true}]'
    expect 0 "$OGEE" mds transfer-leader 3
    wait_for 10 leads 3 || give_up "mds3 does not lead: $("$OGEE" mds ls)"
    expect 0 "$OGEE" mds transfer-leader 1
    wait_for 10 leads 1 || give_up "mds1 does not lead: $("$OGEE" mds ls)"
    # It leads, so it hands over and goes; what knew only its address goes on.
    sleep 12
    expect 0 "$OGEE" mds rm 1
    kill "$(node_pid mds1)"
    OGEE_MDS=$(mds_address mds2),$(mds_address mds3)
    export OGEE_MDS
    expect 0 "$OGEE" mds ls -o json
    json '[.members[].id] == [2, 3]'
    wait_for 20 all_online || give_up "chunkservers do not find the others (they know $first): $("$OGEE" server ls)"
    "$OGEE" volume resize disk --size 512MiB >/dev/null
    # shellcheck disable=SC2317 # called by wait_for
    grown() { [ "$(nbdinfo --size "$URI")" = 536870912 ]; }
    wait_for 60 grown || give_up "the export does not find the others: it shows the old size 60 s after the resize"
    wait "$load" || give_up "fio: $(tail -n 4 "$TEST_DIR/fio.members.log")"
    jq -e '.jobs[0] | .error == 0 and .write.total_ios > 0' "$TEST_DIR/fio.members" >/dev/null
    failover_within "$(fio_wait_ms "$TEST_DIR/fio.members")" "of one request"
    wait_healthy
    export_stop
    copysets_agree
}

# ---- upgrading --------------------------------------------------------------------------------

# restart_stopped NAME   as its service manager does: SIGTERM, and when it is gone a new one
restart_stopped() {
    local pid
    pid=$(node_pid "$1") || give_up "$1 does not run"
    kill "$pid"
    wait_for 30 process_gone "$pid" || give_up "$1 does not end on SIGTERM"
    node_start "$1"
}

# Each process is restarted as docs/operations.md says, under a writer that looks at every answer. A chunkserver leads
# all that it can when its turn comes, and the metadata servers' leader is among them.
test_rolling_restart() {
    local name load led start
    cluster_up --mds-nodes 3 --log-size 128MiB --store-size 2GiB
    create_volume disk --size 256MiB
    export_start disk
    for name in mds1 mds2 mds3 $(chunkservers); do
        led=
        case $name in
        cs*)
            leaders_to "$name"
            led=", led $(led_by "$name")"
            wait_for 60 "$OGEE" server ok-to-stop "$name" || give_up "not ok to stop $name: $("$OGEE" copyset ls)"
            ;;
        *)
            wait_for 60 mds_level || give_up "the metadata servers are not level: $("$OGEE" mds ls)"
            ! leads "${name#mds}" || led=", led"
            ;;
        esac
        writer_starts 16
        sleep 2
        start=$EPOCHREALTIME
        restart_stopped "$name"
        wait_healthy
        echo "   $name$led: well again after $(((${EPOCHREALTIME/./} - ${start/./}) / 1000)) ms"
        sleep 2
        kill "$load"
        wait "$load" || give_up "the writer while $name was restarted: $(tail -n 2 "$TEST_DIR/load.log")"
        jq -e '.errors == 0 and (.disconnected | not) and .acked > 0' "$TEST_DIR/load.json" >/dev/null ||
            give_up "the writer while $name was restarted: $(cat "$TEST_DIR/load.json")"
        echo "   $name: $(jq -c '{acked, errors, gap_max_ms, wait_max_ms}' "$TEST_DIR/load.json")"
        # Only a stop that was not graceful waits for an election.
        jq -e '.gap_max_ms <= 1000' "$TEST_DIR/load.json" >/dev/null || give_up "no I/O for $(jq .gap_max_ms "$TEST_DIR/load.json") ms while $name was restarted"
        ! grep -q 'stopping while still leading' "$DIR/logs/$name.log" || give_up "$name stopped while it led"
    done
    expect 0 "$OGEE" mds check
    (exec_nbd_load verify --state "$TEST_DIR/state") >"$TEST_DIR/verify.json" || give_up "at the end: $(cat "$TEST_DIR/verify.json")"
    export_stop
    copysets_agree
}

# ---- memory -----------------------------------------------------------------------------------

# Writing much more than the log and the volume hold: memory and disk use stay bounded.
test_memory() {
    local volume_mib log_mib=512 target_mib run=0 written=0 kinds kind bytes used used_max=0 limit_mib
    target_mib=$(ci_or_full 6144 20480)
    # Removing stores takes longer than filling them where the file system discards what it frees.
    volume_mib=$(ci_or_full 1024 4096)
    limit_mib=$((3 * (volume_mib + log_mib) + 1024))
    [ "$(df -m --output=avail "$WORK" | tail -n 1)" -gt $((limit_mib + 2048)) ] || give_skip "needs $((limit_mib / 1024 + 2)) GiB free in $WORK"
    cluster_up --log-size "${log_mib}MiB"
    create_volume big --size "${volume_mib}MiB"
    local started=$SECONDS enough_mib=$((4 * log_mib))
    kinds=("write 1MiB 16" "randwrite 64KiB 32" "randwrite 4KiB 64" "randwrite 1MiB 8")
    while [ "$written" -lt "$target_mib" ]; do
        # On a slow disk the CI slice is content with four times the log.
        [ "$FULL" = 1 ] || [ $((SECONDS - started)) -lt 150 ] || [ "$written" -lt "$enough_mib" ] || break
        read -ra kind <<<"${kinds[run % ${#kinds[@]}]}"
        "$OGEE" bench big --rw "${kind[0]}" --bs "${kind[1]}" --iodepth "${kind[2]}" --runtime "$(ci_or_full 8 20)" --seed "$((SEED + run))" -o json \
            >"$TEST_DIR/bench.json" 2>"$TEST_DIR/bench.log" || give_up "bench ${kind[*]}: $(tail -n 3 "$TEST_DIR/bench.log")"
        bytes=$(jq '.jobs[0].write.io_bytes' "$TEST_DIR/bench.json")
        [ "$bytes" -gt 0 ] || give_up "bench ${kind[*]} wrote nothing"
        written=$((written + bytes / 1048576)) run=$((run + 1))
        used=$(du -sxm "$DIR" | cut -f1)
        [ "$used" -le "$used_max" ] || used_max=$used
        echo "   ${kind[*]}: $written MiB written in all, $used MiB on disk, $(resident_mib)"
        [ "$run" -lt 200 ] || give_up "only $written MiB after $run runs"
    done
    local name peak
    for name in $(chunkservers); do
        peak=$(($(awk '/^VmHWM/ { print $2 }' "/proc/$(node_pid "$name")/status") / 1024))
        [ "$peak" -lt 1024 ] || give_up "$name used $peak MiB of memory"
    done
    [ "$used_max" -lt "$limit_mib" ] || give_up "$used_max MiB on disk, more than $limit_mib"
    wait_healthy
    copysets_agree
}

# ---- the group --------------------------------------------------------------------------------

need_packages fio libnbd-bin python3-libnbd qemu-utils jq curl e2fsprogs xfsprogs postgresql-15
build_for_tests
BLOCKS_RS=$(dirname "$OGEE")/examples/blocks
begin_group cluster

# The limit of a test is far above its time: it ends what hangs.
run_test up 120 test_up
run_test late_mds 90 test_late_mds
run_test up_user 90 test_up_user
run_test volume_commands 90 test_volume_commands
run_test doctor 60 test_doctor
run_test status_and_metrics 120 test_status_and_metrics
run_test devices_refused 120 test_devices_refused
run_test clients 150 test_clients
run_test capi "$(ci_or_full 240 400)" test_capi
run_test failover "$(ci_or_full 150 500)" test_failover
run_test postgres_ext4 "$(ci_or_full 300 1500)" test_postgres ext4
[ "$FULL" = 0 ] || run_test postgres_xfs 1500 test_postgres xfs
run_test fio_kills "$(ci_or_full 240 2400)" test_fio_kills
run_test kill_all "$(ci_or_full 240 2400)" test_kill_all
run_test mds_down 150 test_mds_down
# The gate has no time for these.
when_asked mds_versions 180 test_mds_versions
when_asked mds_restore 180 test_mds_restore
when_asked mds_members 240 test_mds_members
when_asked rolling_restart 300 test_rolling_restart
when_asked memory "$(ci_or_full 400 2400)" test_memory
