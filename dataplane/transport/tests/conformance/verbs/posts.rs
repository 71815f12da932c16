//! What goes with one call of the driver, and that all of it comes back.

use crate::support::{
    MS, bytes, client, echoing, mute, pair, serve, server, with_keepalive, write,
};
use ogee_runtime::{now, sleep};
use ogee_transport::{Caller, Endpoint, TransportError, metrics};
use std::time::Duration;

pub async fn what_one_turn_sends_goes_with_one_call(endpoint: Endpoint) {
    let options = with_keepalive(mute());
    let (near, far) = pair(&endpoint, options, options).await;
    let (sender, _keep) = near.split();
    let (_, mut receiver) = far.split();
    let before = metrics();
    // So few that no buffers have to be given back meanwhile.
    for sequence in 0..4 {
        sender.try_send(write(sequence, bytes(3000))).unwrap();
    }
    for sequence in 0..4 {
        let frame = receiver.recv().await.unwrap();
        assert_eq!(frame.header.sequence.get(), sequence);
        assert!(frame.payload[..] == bytes(3000)[..]);
    }
    let after = metrics();
    assert_eq!(after.writes - before.writes, 1);
    assert_eq!(after.frames_out - before.frames_out, 4);
    // As many as were granted at a time, and for half of them a message that gives buffers back.
    for sequence in 4..400 {
        sender.try_send(write(sequence, bytes(600))).unwrap();
    }
    for sequence in 4..400 {
        let frame = receiver.recv().await.unwrap();
        assert_eq!(frame.header.sequence.get(), sequence);
    }
    let calls = metrics().writes - after.writes;
    assert!((25..=200).contains(&calls), "{calls} calls for 396 frames");
}

pub async fn who_closes_waits_for_what_nobody_tells_of(endpoint: Endpoint) {
    // Small, and with a payload that is lent: every number of silent ones, and a few beyond.
    let mut cut = 0;
    for count in 1..20 {
        let options = with_keepalive(mute());
        let (near, far) = pair(&endpoint, options, options).await;
        let (sender, keep) = near.split();
        let (_, mut receiver) = far.split();
        for sequence in 0..count {
            let len = if sequence == 3 { 100 << 10 } else { 100 };
            sender.try_send(write(sequence, bytes(len))).unwrap();
        }
        let began = now();
        sender.close();
        for sequence in 0..count {
            let frame = receiver.recv().await.unwrap();
            assert_eq!(frame.header.sequence.get(), sequence);
        }
        let error = receiver.recv().await.unwrap_err();
        assert_eq!(error, TransportError::PeerClosed, "{count}");
        // After that time it is cut.
        cut += usize::from(now() - began >= Duration::from_secs(1));
        drop(keep);
    }
    // A busy guest is slow once in a while, and not each time.
    assert!(cut < 8, "{cut} of 19 were cut instead of closed");
}

pub async fn memory_of_silent_messages_comes_back(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), echoing());
    let callers: Vec<_> = (0..6)
        .map(|_| Caller::new(service.endpoint().clone(), client()))
        .collect();
    let began = now();
    for caller in &callers {
        while caller.call(write(0, bytes(100))).await.is_err() {
            assert!(now() - began < Duration::from_secs(40), "all connect");
        }
    }
    // Each connection leaves silent messages at both ends, and there are more messages than pieces.
    for round in 0..8 {
        for (at, caller) in callers.iter().enumerate() {
            for sequence in 0..12 {
                let len = 4096 + 100 * at;
                let reply = caller.call(write(sequence, bytes(len))).await.unwrap();
                assert!(reply.payload[..] == bytes(len)[..], "{round} {at}");
            }
        }
        if round % 4 == 0 {
            // Keepalives go, and are told of.
            sleep(600 * MS).await;
        }
    }
}
