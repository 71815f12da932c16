# shellcheck shell=bash
# A cluster whose nodes have a network namespace each, and what is done to it. Sourced after
# cluster.sh by scripts/chaos and scripts/test.d/chaos.sh. Not run.
#
# Every node and the client hang on a bridge in a namespace of its own, by veth pairs. Nothing of
# this host's own network is touched, and two runs do not meet: the names carry the shell's pid.
# Packets are dropped on the bridge: their senders are told nothing.

# Chunkservers and metadata servers that there are from the beginning; who has an address may come later.
NODES=(cs1 cs2 cs3) MDSES=(mds1)
# Of a chunkserver that is not alone in its zone.
declare -A ZONE=()
NET_PREFIX=ogee-chaos-$$
declare -A ADDRESS=([client]=10.77.0.1 [mds1]=10.77.0.2 [cs1]=10.77.0.11 [cs2]=10.77.0.12 [cs3]=10.77.0.13)

# ---- namespaces --------------------------------------------------------------------------------

net_up() {
    local name
    need_root
    ip netns add "$NET_PREFIX-net" 2>/dev/null || give_skip "no network namespaces here"
    defer net_down
    ip -n "$NET_PREFIX-net" link add br0 type bridge
    ip -n "$NET_PREFIX-net" link set br0 up
    for name in "${!ADDRESS[@]}"; do
        ip netns add "$NET_PREFIX-$name"
        ip -n "$NET_PREFIX-$name" link set lo up
        ip -n "$NET_PREFIX-$name" link add eth0 type veth peer name "$name" netns "$NET_PREFIX-net"
        ip -n "$NET_PREFIX-net" link set dev "$name" master br0 up
        ip -n "$NET_PREFIX-$name" addr add "${ADDRESS[$name]}/24" dev eth0
        ip -n "$NET_PREFIX-$name" link set eth0 up
    done
    in_net net nft -f - <<'EOF' || give_skip "no nftables on bridges here"
table bridge chaos {
    chain forward {
        type filter hook forward priority 0; policy accept;
    }
}
EOF
}

net_down() {
    local name
    for name in "${!ADDRESS[@]}" net; do
        [ ! -e "/run/netns/$NET_PREFIX-$name" ] || ip netns del "$NET_PREFIX-$name"
    done
}

# in_net NODE COMMAND...
in_net() {
    nsenter --net="/run/netns/$NET_PREFIX-$1" "${@:2}"
}

# drop MATCH...   packets that match; `from NODE` and `to NODE` are what they pass
drop() {
    local rule=()
    while [ $# -gt 0 ]; do
        case $1 in
        from) rule+=(iifname "$2") ;;
        to) rule+=(oifname "$2") ;;
        one_in) rule+=(numgen random mod "$2" 0) ;;
        esac
        shift 2
    done
    in_net net nft add rule bridge chaos forward "${rule[@]}" counter drop
}

# Nothing is dropped any more.
drop_none() {
    [ ! -e "/run/netns/$NET_PREFIX-net" ] || in_net net nft flush chain bridge chaos forward
}

# Packets that the rule that has dropped fewest has dropped.
dropped_min() {
    in_net net nft -j list chain bridge chaos forward |
        jq '[.nftables[] | .rule? | select(. != null) | [.expr[] | .counter? | select(. != null) | .packets] | add] | min // 0'
}

# ---- the cluster -------------------------------------------------------------------------------

# chaos_up COPYSETS STORE_SIZE LOG_SIZE   a cluster in namespaces; $OGEE speaks from the client's
chaos_up() {
    local name start=$SECONDS starting=()
    DIR=$TEST_DIR/cluster
    NODE_OGEE=$OGEE
    mkdir -p "$DIR"/{conf,data,logs,pids}
    net_up
    printf '#!/bin/sh\nexec nsenter --net=%s %s "$@"\n' "/run/netns/$NET_PREFIX-client" "$NODE_OGEE" >"$TEST_DIR/ogee"
    chmod 755 "$TEST_DIR/ogee"
    OGEE=$TEST_DIR/ogee
    for name in "${NODES[@]}"; do chunkserver_conf "$name" "$2" "$3"; done
    for name in "${MDSES[@]}"; do mds_conf "$name"; done
    echo "export OGEE_MDS=$(mds_addresses | paste -sd,)" >"$DIR/ogee.env"
    use_cluster "$DIR"
    defer cluster_down
    # Together: a metadata server is ready when most of them are.
    for name in "${MDSES[@]}"; do
        node_start "$name" &
        starting+=($!)
    done
    for name in "${starting[@]}"; do wait "$name" || give_up "a metadata server: $(tail -n 3 "$TEST_DIR/start.log")"; done
    for name in "${NODES[@]}"; do node_start "$name"; done
    wait_for 60 nodes_online || give_up "not all are there: $("$OGEE" server ls)"
    # All run already: what is left to do is the pool, and to wait for health.
    "$OGEE" dev up --dir "$DIR" --copysets "$1" --nodes "${#NODES[@]}" --mds-nodes "${#MDSES[@]}" >"$TEST_DIR/up.log" 2>&1 ||
        give_up "dev up: $(tail -n 3 "$TEST_DIR/up.log")"
    echo "   cluster up in $((SECONDS - start)) s, ${#ADDRESS[@]} namespaces"
}

# Who comes later than the pool would carry nothing; a device is well from its first heartbeat on.
nodes_online() {
    "$OGEE" device ls -o json | jq -e --argjson all "${#NODES[@]}" '[.devices[] | select(.online and .state == "ok")] | length == $all'
}

# Of the metadata servers, a line each.
mds_addresses() {
    local name
    for name in "${MDSES[@]}"; do echo "${ADDRESS[$name]}:7000"; done
}

# chunkserver_conf NAME STORE_SIZE LOG_SIZE
chunkserver_conf() {
    mkdir -p "$DIR/data/$1"
    cat >"$DIR/conf/$1.toml" <<EOF
name = "$1"
zone = "${ZONE[$1]:-zone-$1}"
server = "host-$1"
listen = ["${ADDRESS[$1]}:7000"]
mds = [$(mds_addresses | sed 's/.*/"&"/' | paste -sd,)]
metrics = "${ADDRESS[$1]}:9000"

[[device]]
path = "$DIR/data/$1/0.store"
create = "$2"
log_size = "$3"
EOF
}

# mds_conf NAME
mds_conf() {
    local at
    cat >"$DIR/conf/$1.toml" <<EOF
data_dir = "$DIR/data/$1"
listen = "${ADDRESS[$1]}:7000"
metrics = "${ADDRESS[$1]}:9000"
cluster = "chaos"
id = ${1#mds}
EOF
    [ ${#MDSES[@]} -gt 1 ] || return 0
    for at in "${MDSES[@]}"; do
        printf '\n[[members]]\nid = %s\naddr = "%s:7000"\n' "${at#mds}" "${ADDRESS[$at]}" >>"$DIR/conf/$1.toml"
    done
}

node_start() {
    in_net "$1" "$NODE_OGEE" dev start "$1" --dir "$DIR" >>"$TEST_DIR/start.log" 2>&1 ||
        give_up "dev start $1: $(tail -n 3 "$TEST_DIR/start.log")"
}

metrics_of() {
    in_net client curl -sS --fail --max-time 5 "http://${ADDRESS[$1]}:9000/metrics"
}

# shellcheck disable=SC2034 # for nemesis.sh
# random_below N   $PICK; not a substitution, whose subshell would not move the sequence on
random_below() {
    PICK=$((RANDOM % $1))
}

# ---- load --------------------------------------------------------------------------------------

# load_start VOLUME KEY=NUMBER...   scripts' history_load in the client's namespace: $LOAD
load_start() {
    CONTROL=$TEST_DIR/control
    : >"$CONTROL"
    # Not by a function, whose subshell's pid would not be the load's.
    nsenter --net="/run/netns/$NET_PREFIX-client" "$HISTORY_LOAD" "$OGEE_MDS" "$1" "$TEST_DIR/history" "$CONTROL" \
        seed="$SEED" "${@:2}" >"$TEST_DIR/load.json" 2>"$TEST_DIR/load.log" &
    LOAD=$!
    defer end_process "$LOAD"
    sleep 1
    load_lives
}

load_lives() {
    process_alive "$LOAD" || give_up "the load ended: $(cut -c1-400 "$TEST_DIR/load.json") $(tail -n 3 "$TEST_DIR/load.log" | cut -c1-600)"
}

# load_mark NAME   what follows is reported under this name
load_mark() {
    echo "mark $1" >>"$CONTROL"
}

# load_stop [SECONDS]   ends the load and judges what it saw
load_stop() {
    echo stop >>"$CONTROL"
    wait_for "${1:-120}" process_gone "$LOAD" || give_up "the load does not end: $(tail -n 3 "$TEST_DIR/load.log")"
    wait "$LOAD" || give_up "the load: $(jq -c '{failure, wrong, corrupt}' "$TEST_DIR/load.json") $(tail -n 3 "$TEST_DIR/load.log" | cut -c1-600)"
    "$OGEE_HISTORY" "$TEST_DIR/history" >"$TEST_DIR/verdict" 2>&1 || {
        [ "$KEEP" = 1 ] || cp "$TEST_DIR/history" "${TMPDIR:-/tmp}/ogee-history.$SEED"
        give_up "not linearizable (history kept in ${TMPDIR:-/tmp}/ogee-history.$SEED): $(head -n 8 "$TEST_DIR/verdict")"
    }
    echo "   linearizable: $(cat "$TEST_DIR/verdict"), $(jq -c '{abandoned, corrupt, wrong}' "$TEST_DIR/load.json")"
}

# ---- the group ---------------------------------------------------------------------------------

# What is needed is installed, built and copied to where no build replaces it.
chaos_begin() {
    local target=${CARGO_TARGET_DIR:-$REPO/target}/release
    need_packages nftables iproute2 util-linux e2fsprogs jq curl libnbd-bin python3-libnbd
    build_release
    [ "${OGEE_SKIP_BUILD:-0}" = 1 ] ||
        (cd "$REPO" && cargo build --release --quiet -p ogee-sim --bin ogee-history --example history_load)
    begin_group chaos
    install -m 755 "$target/ogee-history" "$target/examples/history_load" "$WORK"
    OGEE_HISTORY=$WORK/ogee-history
    HISTORY_LOAD=$WORK/history_load
}
