//! The transport contract, run on every carrier: what holds over TCP holds within an executor, and over RDMA.
//!
//! Each case of [`carriers`] runs on each; those of [`streams_only`] ask for what only bytes promise. What needs a peer
//! that breaks the rules is in `hostile`, which writes raw bytes over a plain TCP stream.
//!
//! RDMA (feature `rdma`) wants a device: those cases are ignored unless asked for, as `ONLY=rdma_transport scripts/test
//! lab` does in a guest, with the device's address in `OGEE_RDMA_ADDRESS`.

#![expect(
    clippy::unwrap_used,
    reason = "a test may; the lint only knows #[test] functions"
)]

mod calls;
mod connections;
mod hostile;
mod liveness;
mod streams;
mod support;
#[cfg(feature = "rdma")]
mod verbs;

/// Runs each case over TCP and over loopback.
macro_rules! streams_only {
    ($($module:ident::$case:ident,)*) => {
        mod tcp {
            $(#[test]
            fn $case() {
                let any = "127.0.0.1:0".parse().unwrap();
                ogee_runtime::executor::block_on(crate::$module::$case(any));
            })*
        }
        mod loopback {
            $(#[test]
            fn $case() {
                let name = concat!("loopback:", stringify!($case)).parse().unwrap();
                ogee_runtime::executor::block_on(crate::$module::$case(name));
            })*
        }
    };
}

/// Runs each case on every carrier.
macro_rules! carriers {
    ($($module:ident::$case:ident,)*) => {
        streams_only! {
            connections::a_burst_is_one_write,
            connections::large_payloads_are_not_copied,
            $($module::$case,)*
        }
        #[cfg(feature = "rdma")]
        mod rdma {
            $(#[test]
            #[ignore = "wants an RDMA device: ONLY=rdma_transport scripts/test lab"]
            fn $case() {
                crate::support::on_rdma(crate::$module::$case);
            })*
        }
    };
}

carriers! {
    connections::bodies_of_every_size_come_back_unchanged,
    connections::frames_arrive_in_order,
    connections::receiving_may_be_dropped_at_any_point,
    connections::a_full_queue_gives_the_frame_back,
    connections::sending_waits_for_room_and_loses_nothing,
    connections::a_frame_past_its_limit_is_refused,
    connections::what_was_queued_is_written_before_closing,
    connections::both_sides_know_each_other,
    connections::an_endpoint_has_one_listener,
    calls::replies_out_of_order_find_their_calls,
    calls::calls_stay_within_the_credits,
    calls::a_call_without_a_credit_was_not_sent,
    calls::a_late_reply_reaches_nobody_and_returns_its_credit,
    calls::a_cancelled_call_returns_its_credit,
    calls::a_lost_connection_fails_its_calls_and_heals,
    calls::nobody_there_is_unreachable,
    calls::a_peer_that_takes_no_requests_is_unreachable,
    calls::exceeding_the_credits_ends_the_connection,
    calls::handlers_see_frames_in_order,
    calls::too_many_connections_are_refused,
    streams::replies_come_back_in_order,
    streams::a_broken_connection_ends_the_stream,
    streams::more_replies_than_the_window_end_the_stream,
    streams::a_client_may_not_stream,
    liveness::an_idle_connection_stays,
    liveness::a_silent_peer_is_noticed,
    liveness::a_peer_that_nobody_listens_to_is_not_silent,
    liveness::dropping_the_caller_closes_its_connection,
}
