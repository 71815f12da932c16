# shellcheck shell=bash
# Shared by the scripts of perf/. Sourced, not run.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib/common.sh"

# free_ports COUNT   on 127.0.0.1, below those that the kernel gives to outgoing connections
free_ports() {
    local found=0 port end
    read -r end _ </proc/sys/net/ipv4/ip_local_port_range
    [ "$end" -gt 11000 ] || end=32768
    while [ "$found" -lt "$1" ]; do
        port=$((10000 + (RANDOM * 32768 + RANDOM) % (end - 10000)))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "$port"
            found=$((found + 1))
        fi
    done
}
