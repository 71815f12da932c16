#!/bin/sh
# In a guest: each ignored case of a test binary in a process of its own, each with its own time.
#
#   lab_cases.sh BINARY SECONDS [[after:]FROM]      from that case on, or from the next one
#
# Prints PASS or FAIL and the seconds of each; of one that fails, the end of what it said.
#
# rxe of Linux 6.1 sometimes stops receiving for good, for every program, mostly after its link was down: it sends, and
# its counter of received packets stands. So where a case fails, rdma-core's own rping is asked. If that cannot ping either,
# it prints `DEAD case` and ends with 75: a new guest is to go on from there.
binary=$1 limit=$2 from=${3:-} failed=0

pings() {
    status=0
    rping -s -a "$OGEE_RDMA_ADDRESS" -C 3 >/dev/null 2>&1 &
    server=$!
    sleep 1
    timeout 10 rping -c -a "$OGEE_RDMA_ADDRESS" -C 3 >/dev/null 2>&1 || status=$?
    kill "$server" 2>/dev/null
    return $status
}

for case in $("$binary" --list --ignored | sed -n 's/: test$//p'); do
    case $from in
    '' | "$case") from= ;;
    "after:$case") from= && continue ;;
    *) continue ;;
    esac
    began=$(cut -d. -f1 /proc/uptime)
    if timeout "$limit" "$binary" --ignored --exact "$case" >/tmp/case.log 2>&1; then
        echo "PASS $case $(($(cut -d. -f1 /proc/uptime) - began)) s"
        continue
    fi
    if [ -n "${OGEE_RDMA_ADDRESS:-}" ] && ! pings; then
        echo "DEAD $case"
        exit 75
    fi
    echo "FAIL $case: ended with an error after $(($(cut -d. -f1 /proc/uptime) - began)) s"
    grep -v '^$' /tmp/case.log | head -n 20
    failed=1
done
exit $failed
