#!/bin/sh
# In a guest: each ignored case of a test binary in a process of its own, each with its own time.
#
#   lab_cases.sh BINARY SECONDS
#
# Prints PASS or FAIL and the seconds of each; of one that fails, the end of what it said.
binary=$1 limit=$2 failed=0
for case in $("$binary" --list --ignored | sed -n 's/: test$//p'); do
    began=$(cut -d. -f1 /proc/uptime)
    if timeout "$limit" "$binary" --ignored --exact "$case" >/tmp/case.log 2>&1; then
        echo "PASS $case $(($(cut -d. -f1 /proc/uptime) - began)) s"
    else
        echo "FAIL $case: ended with $? after $(($(cut -d. -f1 /proc/uptime) - began)) s"
        grep -v '^$' /tmp/case.log | head -n 20
        failed=1
    fi
done
exit $failed
