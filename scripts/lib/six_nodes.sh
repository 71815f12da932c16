# shellcheck shell=bash
# Six chunkservers in three zones and three metadata servers, each in a network namespace of its own. Sourced after
# cluster.sh, chaos.sh and heal.sh.

six_leaders_even() {
    # shellcheck disable=SC2046 # one word each
    is_even $(led_by cs1 cs2 cs3 cs4 cs5 cs7)
}

# Under a verified load: one chunkserver falls silent for good, one comes, one is drained, and the leading metadata server
# dies during each.
# shellcheck disable=SC2034,SC2154 # names of nodes; NODES, MDSES, ADDRESS and ZONE are chaos.sh's
chaos_six_nodes() {
    local load start at lost=cs6 drained=cs5 stores=(2GiB 128MiB)
    NODES=(cs1 cs2 cs3 cs4 cs5 cs6) MDSES=(mds1 mds2 mds3)
    for at in 2 3; do ADDRESS[mds$at]=10.77.0.$((at + 1)); done
    for at in {1..7}; do ADDRESS[cs$at]=10.77.0.$((at + 10)); done
    for at in {1..6}; do ZONE[cs$at]=zone$(((at - 1) % 3 + 1)); done
    ZONE[cs7]=zone3
    export OGEE_MDS_SERVER__HEARTBEAT_MS=500 OGEE_MDS_SERVER__HEAL__RECOVER_AFTER_MS=4000
    export OGEE_MDS_SERVER__HEAL__REPLICA_BALANCE_AFTER_MS=2000 OGEE_MDS_SERVER__HEAL__BALANCE_AFTER_MS=1000
    chaos_up "$(ci_or_full 12 48)" "${stores[@]}"
    make_volumes "$(ci_or_full 128MiB 512MiB)"
    writer_begins 8

    start=$(now_ms)
    # It says nothing any more, and nobody is told why: its process goes on, and never comes back.
    drop from "$lost"
    drop to "$lost"
    wait_for 60 is_begun recover || give_up "nothing is recovered: $("$OGEE" status)"
    mds_leader_kill
    wait_for 180 empty_and_whole "$lost" || give_up "not whole: $("$OGEE" job ls) $("$OGEE" copyset ls)"
    echo "   whole again $(($(now_ms) - start)) ms after $lost fell silent, 4000 of which were waited"
    node_kill "$lost"
    wait_for 20 server_removed "$lost" || give_up "$lost is not forgotten: $(tail -n 3 "$TEST_DIR/rm.log")"
    mds_restart_dead

    start=$(now_ms)
    chunkserver_conf cs7 "${stores[@]}"
    node_start cs7
    wait_for 60 is_begun balance || give_up "nothing moves: $("$OGEE" status)"
    mds_leader_kill
    # What was balanced while chunkservers were still coming rests for five minutes.
    wait_for 420 devices_even || give_up "uneven: $("$OGEE" device ls) $("$OGEE" job ls)"
    echo "   replicas: $(carried_by) $(($(now_ms) - start)) ms after cs7 came, 2000 of which were waited"
    # Leaders go when every replica is in its place.
    wait_for 120 six_leaders_even || give_up "leaders: $("$OGEE" server ls) $("$OGEE" job ls)"
    echo "   leaders: $(led_by cs1 cs2 cs3 cs4 cs5 cs7) after $(($(now_ms) - start)) ms"
    mds_restart_dead

    start=$(now_ms)
    "$OGEE" server drain "$drained" >/dev/null
    wait_for 60 is_begun drain || give_up "nothing is drained: $("$OGEE" status)"
    mds_leader_kill
    wait_for 180 is_marked "$drained" empty || give_up "$drained is not empty: $("$OGEE" job ls) $("$OGEE" copyset ls)"
    wait_for 10 empty_and_whole "$drained" || give_up "drained at the cost of others: $("$OGEE" copyset ls)"
    echo "   drained in $(($(now_ms) - start)) ms"
    node_kill "$drained"
    wait_for 20 server_removed "$drained" || give_up "$drained is not forgotten: $(tail -n 3 "$TEST_DIR/rm.log")"
    mds_restart_dead
    wait_healthy 60

    writer_ends "$load"
    echo "   all under load: $(jq -c '{acked, errors, gap_max_ms, wait_max_ms}' "$TEST_DIR/load.json")"
    "$OGEE" mds check >"$TEST_DIR/mds-check.log" 2>&1 || give_up "the metadata servers differ: $(cat "$TEST_DIR/mds-check.log")"
    copysets_agree
}
