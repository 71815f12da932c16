# shellcheck shell=bash
# The cluster heals by itself: what the tests of it look at. Sourced after cluster.sh.

# heal_cluster OPTION...   a cluster that re-protects after 4 s, and moves leaders only when asked. Each step of a move
# takes a heartbeat or two.
heal_cluster() {
    export OGEE_MDS_SERVER__HEARTBEAT_MS=500
    export OGEE_MDS_SERVER__HEAL__RECOVER_AFTER_MS=4000 OGEE_MDS_SERVER__HEAL__BALANCE_AFTER_MS=0
    cluster_up "$@"
}

# carriers   chunkservers with replicas, by name
carriers() {
    "$OGEE" server ls -o json | jq -r '[.servers[] | select(.replicas > 0) | .name] | sort | join(" ")'
}

# carries NAME   how many replicas count on it
carries() {
    "$OGEE" server ls -o json | jq --arg name "$1" '.servers[] | select(.name == $name) | .replicas'
}

# empty_and_whole NAME   none is there, and each copyset has three that are well
empty_and_whole() {
    [ "$(carries "$1")" = 0 ] || return 1
    "$OGEE" copyset ls -o json | jq -e 'all(.copysets[]; ([.replicas[] | select(.role == "voter" and .state == "ok")] | length) == 3)'
}

# is_marked NAME MARK
is_marked() {
    "$OGEE" server ls -o json | jq -e --arg name "$1" --arg mark "$2" 'any(.servers[]; .name == $name and .mark == $mark)'
}

# jobs_run KIND   of which at least one is under way or done
jobs_run() {
    "$OGEE" job ls -o json | jq -e --arg kind "$1" 'any(.jobs[]; .kind == $kind and (.state == "running" or .state == "done"))'
}

# mds_leader_kill   by SIGKILL; the others go on
mds_leader_kill() {
    local leader
    # Not healthy: that is why.
    "$OGEE" status -o json >"$TEST_DIR/status.json" || [ $? = 3 ] || give_up "status"
    leader=mds$(jq '.mds.leader' "$TEST_DIR/status.json")
    node_kill "$leader"
    echo "   killed $leader, which led"
}

# Every metadata server answers and lacks next to nothing.
mds_level() {
    "$OGEE" mds ls -o json | jq -e '.members | length == 3 and all(.reachable and .lag <= 16)'
}

# Metadata servers that were killed come back.
mds_restart_dead() {
    local name
    for name in mds1 mds2 mds3; do node_pid "$name" >/dev/null || node_start "$name"; done
    wait_for 60 mds_level || give_up "the metadata servers are not level: $("$OGEE" mds ls)"
}

# led_by NAME...   how many copysets each of them leads
led_by() {
    "$OGEE" server ls -o json | jq -r --args '[.servers[] | select(.name as $n | $ARGS.positional | any(. == $n)) | .leaders] | join(" ")' "$@"
}

# leads_what_it_can NAME   of those with a replica there
leads_what_it_can() {
    "$OGEE" copyset ls -o json | jq -e --arg name "$1" 'all(.copysets[]; .replicas | all(.chunkserver != $name) or any(.chunkserver == $name and .leader))'
}

# leaders_to NAME   every leader that can goes there
leaders_to() {
    local copyset
    while read -r copyset; do
        "$OGEE" copyset transfer-leader "$copyset" --to "$1" >>"$TEST_DIR/transfer.log" 2>&1 || give_up "transfer-leader: $(tail -n 3 "$TEST_DIR/transfer.log")"
    done < <("$OGEE" copyset ls -o json | jq -r --arg name "$1" '.copysets[] | select(any(.replicas[]; .chunkserver == $name and (.leader | not))) | .id')
    wait_for 20 leads_what_it_can "$1" || give_up "$1 does not lead: $("$OGEE" copyset ls)"
}

# is_even NUMBER...   they differ by at most 1
is_even() {
    local least=$1 most=$1 number
    for number in "$@"; do
        [ "$number" -ge "$least" ] || least=$number
        [ "$number" -le "$most" ] || most=$number
    done
    [ $((most - least)) -le 1 ]
}

# It is taken for online until it has been silent for a while.
server_removed() {
    "$OGEE" server rm "$1" >"$TEST_DIR/rm.log" 2>&1
}

# carried_by   replicas of each chunkserver
carried_by() {
    "$OGEE" server ls -o json | jq -r '[.servers[].replicas] | join(" ")'
}

devices_even() {
    # shellcheck disable=SC2046 # one word each
    is_even $(carried_by)
}

# is_begun KIND   such a job is under way
is_begun() {
    "$OGEE" job ls -o json | jq -e --arg kind "$1" 'any(.jobs[]; .kind == $kind and .state == "running")'
}
