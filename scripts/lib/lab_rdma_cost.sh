#!/bin/busybox sh
# shellcheck shell=dash
# In a guest whose time counts instructions: what a request and its answer cost, by perftest and by rdma_cost.
#
#   lab_rdma_cost.sh COUNT
#
# Prints `perftest SIZE MICROSECONDS`, the typical half of a round trip, for both sizes, and `ours LEAST TYPICAL MOST`, of whole ones.
# All of them wait for events: on one processor, looking all the time keeps the other side from its turn.
set -eu
count=$1
AT=$LAB_ADDRESS:7900

failed() {
    echo "FAILED: $*"
    exit 10
}

perftest() {
    ib_send_lat -d rxe0 -x 1 -F -e -s "$1" -n "$count" >/tmp/perftest.served 2>&1 &
    server=$!
    sleep 1
    ib_send_lat -d rxe0 -x 1 -F -e -s "$1" -n "$count" "$LAB_ADDRESS" >/tmp/perftest.asked 2>&1 || failed "ib_send_lat: $(tail -n 5 /tmp/perftest.asked)"
    wait "$server" || failed "ib_send_lat, who is asked: $(tail -n 5 /tmp/perftest.served)"
    awk -v size="$1" '$1 == size && NF >= 9 { print "perftest", size, $5 }' /tmp/perftest.asked
}

rdma_cost serve "$AT" >/tmp/served 2>&1 &
server=$!
sleep 1
asked=$(rdma_cost ask "$AT" "$count" 2>/tmp/asked) || failed "$(tail -n 5 /tmp/asked /tmp/served)"
echo "ours $asked"
kill "$server"
wait "$server" 2>/dev/null || true
perftest 4096
perftest 64
