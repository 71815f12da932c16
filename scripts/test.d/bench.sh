#!/usr/bin/env bash
# `ogee bench` runs every load and reports with fio's keys. No bars but instruction counts: figures are
# compared in perf/.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=scripts/lib/cluster.sh
. "$REPO/scripts/lib/cluster.sh"
cd "$REPO"

# The side's keys are all there, as numbers, whether or not it was used.
# shellcheck disable=SC2016 # jq's variables
SIDE='def side: (.iops, .bw_bytes, .lat_ns.mean, .lat_ns.percentile["50.000000"], .lat_ns.percentile["99.000000"], .lat_ns.percentile["99.900000"]) | type == "number";'

test_bench() {
    cluster_up
    create_volume load --size 1GiB
    local rw reads writes
    for rw in write randwrite read randread randrw; do
        "$OGEE" bench load --rw "$rw" --bs 4k --iodepth 32 --runtime 2 -o json >"$TEST_DIR/$rw.json" 2>"$TEST_DIR/$rw.log" ||
            give_up "bench --rw $rw: $(tail -n 3 "$TEST_DIR/$rw.log")"
        jq -e "$SIDE (.jobs | length == 1) and all(.jobs[0].read, .jobs[0].write; all(side; .))" "$TEST_DIR/$rw.json" >/dev/null ||
            give_up "bench --rw $rw does not have fio's keys: $(head -c 600 "$TEST_DIR/$rw.json")"
        reads=$(jq '.jobs[0].read.iops | floor' "$TEST_DIR/$rw.json")
        writes=$(jq '.jobs[0].write.iops | floor' "$TEST_DIR/$rw.json")
        echo "   $rw: read $reads IOPS, write $writes IOPS, p99 $(jq -c '[.jobs[0].read, .jobs[0].write] | map(.lat_ns.percentile["99.000000"] / 1000 | floor)' "$TEST_DIR/$rw.json") us"
        # What the load does not do must not be counted.
        jq -e --arg rw "$rw" '.jobs[0] | (.read.iops > 0) == ($rw | test("read|rw")) and (.write.iops > 0) == ($rw | test("write|rw"))' \
            "$TEST_DIR/$rw.json" >/dev/null || give_up "bench --rw $rw: read $reads IOPS, write $writes IOPS"
    done
    "$OGEE" bench load --rw randwrite --runtime 1 >"$TEST_DIR/table" || give_up "no table"
    grep -qi 'iops' "$TEST_DIR/table" || give_up "the table shows no IOPS"
    copysets_agree
}

# Instructions per step of the data path, which do not depend on what else the machine does.
test_cost() {
    local code=0
    "$REPO/scripts/cost" >"$TEST_DIR/cost" 2>&1 || code=$?
    sed 's/^/   /' "$TEST_DIR/cost"
    case $code in
    0) ;;
    77) give_skip "$(tail -n 1 "$TEST_DIR/cost")" ;;
    *) give_up "a step of the data path costs more than it did: $(grep -E 'too much|FAILED' "$TEST_DIR/cost" | head -n 3)" ;;
    esac
}

need_packages jq
build_release
begin_group bench
run_test bench 90 test_bench
run_test cost 500 test_cost
