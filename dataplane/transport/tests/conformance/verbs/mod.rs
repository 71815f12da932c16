//! What only RDMA has: lent memory, receive buffers, versions while connecting, and peers that break those rules.

mod areas;
mod choice;
mod device;
mod hostile;
mod memory;
mod posts;
mod raw;
mod storms;

/// Runs each case on an RDMA device.
macro_rules! on_a_device {
    ($($module:ident::$case:ident,)*) => {
        $(#[test]
        #[ignore = "wants an RDMA device: ONLY=rdma_transport scripts/test lab"]
        fn $case() {
            crate::support::on_rdma($module::$case);
        })*
    };
}

on_a_device! {
    choice::who_offers_both_is_reached_over_either,
    choice::where_rdma_does_not_answer_tcp_does,
    areas::what_a_device_has_read_is_sent_from_there,
    areas::a_payload_is_lent_from_the_memory_that_it_was_made_in,
    areas::memory_of_others_is_sent_from_where_it_lies_while_it_is_announced,
    areas::memory_is_withdrawn_while_it_is_sent,
    areas::what_cannot_be_registered_is_copied_and_counted,
    areas::answers_are_written_where_they_are_wanted,
    areas::a_loan_that_is_recalled_is_over_before_its_answer,
    areas::a_peer_that_was_late_is_lent_no_more_for_a_while,
    areas::an_answer_that_crosses_its_recall_is_to_be_asked_for_again,
    areas::a_loan_goes_with_its_connection,
    areas::an_answer_that_its_reader_wrote_over_is_asked_for_again,
    areas::buffers_that_find_no_room_are_copied_and_counted,
    device::a_device_that_is_taken_away_is_given_up_and_comes_back,
    device::a_port_that_goes_down_ends_its_connections_and_says_so,
    hostile::another_version_is_refused_and_named,
    hostile::an_acceptor_of_another_version_is_refused,
    hostile::a_stranger_is_refused,
    hostile::a_wrong_key_ends_its_connection_alone,
    hostile::a_wrong_key_for_an_answer_ends_its_connection_alone,
    hostile::messages_that_lie_end_the_connection,
    hostile::a_message_longer_than_the_buffers_ends_the_connection,
    hostile::messages_beyond_the_grant_end_the_connection,
    hostile::an_acceptor_may_not_lend,
    hostile::a_peer_that_goes_while_it_is_read_from,
    hostile::a_silent_peer_is_noticed_by_default_within_two_seconds,
    memory::reads_are_answered_into_lent_memory,
    memory::payloads_are_not_copied_where_they_arrive,
    memory::what_was_received_is_sent_on_without_a_copy,
    memory::a_read_that_is_given_up_gives_its_memory_back,
    memory::what_users_keep_does_not_stop_the_port,
    posts::what_one_turn_sends_goes_with_one_call,
    posts::who_closes_waits_for_what_nobody_tells_of,
    posts::memory_of_silent_messages_comes_back,
    storms::connections_come_and_go,
    storms::grants_are_never_more_than_the_queue_holds,
    storms::a_killed_process_is_noticed_while_memory_moves,
    storms::a_port_that_never_sleeps_lets_others_run,
    storms::a_client_to_be_killed,
}
