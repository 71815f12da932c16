//! One connection: bodies, order, bounds, the end.

use crate::support::{
    MS, bytes, caller_options, client, echoing, frame, mute, pair, serve_with, server,
    service_options, write,
};
use ogee_proto::checksum::crc32c_blocks;
use ogee_proto::limit::{BLOCK_SIZE, REPLICATION_PAYLOAD_MAX};
use ogee_proto::wire::FrameKind;
use ogee_runtime::{sleep, spawn, timeout};
use ogee_transport::{
    COPY_MAX, Caller, ConnectionOptions, Doing, Endpoint, FrameReceiver, LARGE_MIN, Listener,
    SendError, TransportError, metrics,
};
use std::io::ErrorKind;

pub async fn bodies_of_every_size_come_back_unchanged(endpoint: Endpoint) {
    let before = metrics();
    // Without pings, so that both directions count the same.
    let service = serve_with(&endpoint, server(), service_options(mute()), echoing());
    let caller = Caller::with_options(service.endpoint().clone(), client(), caller_options(mute()));
    let edges = [COPY_MAX, LARGE_MIN, 256 << 10];
    let around = edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 1]);
    for len in [0, 1, 127, 128, 4096, (1 << 20) - 1, 1 << 20]
        .into_iter()
        .chain(around)
    {
        for meta_len in [0, 1, 5000, 200 << 10] {
            let mut request = write(1, bytes(len));
            request.meta = bytes(meta_len).into();
            let reply = caller.call(request).await.unwrap();
            assert!(
                reply.payload[..] == bytes(len)[..],
                "payload of {len} with meta {meta_len}"
            );
            assert!(
                reply.meta[..] == bytes(meta_len)[..],
                "meta of {meta_len} with {len}"
            );
        }
    }
    let after = metrics();
    assert_eq!(
        after.frames_in - before.frames_in,
        after.frames_out - before.frames_out
    );
    assert_eq!(
        after.bytes_in - before.bytes_in,
        after.bytes_out - before.bytes_out
    );
    assert!(after.reads > before.reads && after.bytes_in - before.bytes_in > 2 << 20);
}

pub async fn frames_arrive_in_order(endpoint: Endpoint) {
    let (near, far) = open(&endpoint).await;
    let (sender, _keep) = near.split();
    let (_, mut receiver) = far.split();
    let sending = spawn(async move {
        let mut sequence = 0;
        while sequence < 3000 {
            // Small, copied, direct and own-buffer payloads in turn.
            for len in [0, 100, 4096, COPY_MAX + 1, LARGE_MIN] {
                sender.send(write(sequence, bytes(len))).await.unwrap();
                sequence += 1;
            }
        }
    });
    expect_sequences(&mut receiver, 3000).await;
    sending.await.unwrap();
}

pub async fn receiving_may_be_dropped_at_any_point(endpoint: Endpoint) {
    const ROUNDS: u64 = 12;
    let (near, far) = open(&endpoint).await;
    let (sender, _keep) = near.split();
    let (_, mut receiver) = far.split();
    let sending = spawn(async move {
        for round in 0..ROUNDS {
            for (at, len) in (0..).zip([1 << 20, 0, 300 << 10, 9000]) {
                sender
                    .send(write(round * 4 + at, bytes(len)))
                    .await
                    .unwrap();
                // Long enough for the receiver to give up, also after a large frame.
                sleep(3 * MS).await;
            }
        }
    });
    let (mut expected, mut dropped) = (0, 0);
    while expected < ROUNDS * 4 {
        match timeout(MS, receiver.recv()).await {
            Err(_) => dropped += 1,
            Ok(frame) => {
                let frame = frame.unwrap();
                assert_eq!(frame.header.sequence.get(), expected);
                assert!(frame.payload[..] == bytes(frame.payload.len())[..]);
                expected += 1;
            }
        }
    }
    assert!(dropped > 0, "it was dropped at all");
    sending.await.unwrap();
}

pub async fn a_burst_is_one_write(endpoint: Endpoint) {
    let (near, far) = open(&endpoint).await;
    let (sender, _keep) = near.split();
    let (_, mut receiver) = far.split();
    let before = metrics();
    for sequence in 0..200 {
        sender.try_send(write(sequence, bytes(64))).unwrap();
    }
    expect_sequences(&mut receiver, 200).await;
    let after = metrics();
    assert_eq!(after.writes - before.writes, 1);
    assert_eq!(after.frames_out - before.frames_out, 200);
    // Out: every payload. In: only what straddles two chunks.
    let copied = after.bytes_copied - before.bytes_copied;
    assert!(
        (200 * 64..200 * 70).contains(&copied),
        "{copied} bytes copied"
    );
}

pub async fn large_payloads_are_not_copied(endpoint: Endpoint) {
    const FRAMES: u64 = 32;
    const LEN: usize = 1 << 20;
    let (near, far) = open(&endpoint).await;
    let (sender, _keep) = near.split();
    let (_, mut receiver) = far.split();
    let before = metrics().bytes_copied;
    let sending = spawn(async move {
        for sequence in 0..FRAMES {
            sender.send(write(sequence, bytes(LEN))).await.unwrap();
        }
    });
    for sequence in 0..FRAMES {
        let frame = receiver.recv().await.unwrap();
        assert_eq!(frame.header.sequence.get(), sequence);
        // A device can take it from where the socket put it.
        assert!(frame.payload.is_transferable(), "frame {sequence}");
        // And a log needs no pass of its own over it, whatever part it is given.
        let (crcs, _) = crc32c_blocks(&frame.payload);
        assert_eq!(frame.payload.block_crcs(BLOCK_SIZE), Some(&crcs[..]));
        let part = frame.payload.slice(BLOCK_SIZE..3 * BLOCK_SIZE);
        assert_eq!(part.block_crcs(BLOCK_SIZE), Some(&crcs[1..3]));
    }
    sending.await.unwrap();
    let copied = metrics().bytes_copied - before;
    assert!(copied < FRAMES * LEN as u64 / 32, "{copied} bytes copied");
}

pub async fn a_full_queue_gives_the_frame_back(endpoint: Endpoint) {
    let options = ConnectionOptions {
        queue_frames_max: 4,
        ..ConnectionOptions::default()
    };
    let (near, _far) = pair(&endpoint, options, ConnectionOptions::default()).await;
    let (sender, _keep) = near.split();
    for sequence in 0..4 {
        sender.try_send(write(sequence, bytes(9))).unwrap();
    }
    assert_eq!(sender.queued().0, 4);
    let Err(SendError::Full(back)) = sender.try_send(write(5, bytes(77))) else {
        panic!("a fifth frame was taken");
    };
    assert_eq!(
        (back.header.sequence.get(), &back.payload[..]),
        (5, &bytes(77)[..])
    );
}

pub async fn sending_waits_for_room_and_loses_nothing(endpoint: Endpoint) {
    const FRAMES: u64 = 64;
    let options = ConnectionOptions {
        queue_bytes_max: 3 << 20,
        ..ConnectionOptions::default()
    };
    let (near, far) = pair(&endpoint, options, ConnectionOptions::default()).await;
    let (sender, _keep) = near.split();
    let watched = sender.clone();
    let sending = spawn(async move {
        for sequence in 0..FRAMES {
            sender.send(write(sequence, bytes(1 << 20))).await.unwrap();
        }
    });
    // Nobody reads at the far end: the sender gets stuck, with its queue within the bound.
    let (mut last, mut same) = (usize::MAX, 0);
    while same < 20 {
        sleep(MS).await;
        let (_, queued) = watched.queued();
        assert!(queued <= 3 << 20, "{queued} bytes queued");
        same = if queued == last { same + 1 } else { 0 };
        last = queued;
    }
    assert!(!sending.is_finished() && last > 0);
    let (_, mut receiver) = far.split();
    expect_sequences(&mut receiver, FRAMES).await;
    sending.await.unwrap();
}

pub async fn a_frame_past_its_limit_is_refused(endpoint: Endpoint) {
    let (near, far) = open(&endpoint).await;
    let (sender, _keep) = near.split();
    let error = sender
        .try_send(write(1, bytes(REPLICATION_PAYLOAD_MAX + 1)))
        .unwrap_err();
    assert!(
        matches!(
            error,
            SendError::TooLong {
                field: "payload",
                ..
            }
        ),
        "{error}"
    );
    sender.try_send(write(0, Vec::new())).unwrap();
    expect_sequences(&mut far.split().1, 1).await;
}

pub async fn what_was_queued_is_written_before_closing(endpoint: Endpoint) {
    let (near, far) = open(&endpoint).await;
    let (sender, keep) = near.split();
    for sequence in 0..5 {
        sender.try_send(write(sequence, bytes(300 << 10))).unwrap();
    }
    drop(keep);
    let error = sender.try_send(write(5, Vec::new())).unwrap_err();
    assert!(
        matches!(
            error,
            SendError::Closed {
                cause: TransportError::Closed,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(sender.closed().await, TransportError::Closed);
    let (_, mut receiver) = far.split();
    expect_sequences(&mut receiver, 5).await;
    assert_eq!(
        receiver.recv().await.unwrap_err(),
        TransportError::PeerClosed
    );
    assert_eq!(
        receiver.recv().await.unwrap_err(),
        TransportError::PeerClosed,
        "and again"
    );
}

pub async fn both_sides_know_each_other(endpoint: Endpoint) {
    let before = metrics().connections;
    let (near, far) = open(&endpoint).await;
    assert_eq!((near.peer(), far.peer()), (&server(), &client()));
    assert_eq!(metrics().connections - before, 2);
    let (sender, _keep) = near.split();
    sender
        .try_send(frame(FrameKind::Read, 0, Vec::new()))
        .unwrap();
    expect_sequences(&mut far.split().1, 1).await;
}

pub async fn an_endpoint_has_one_listener(endpoint: Endpoint) {
    let listener = Listener::bind(&endpoint).unwrap();
    let endpoint = listener.endpoint().clone();
    let Err(error) = Listener::bind(&endpoint) else {
        panic!("bound twice")
    };
    let TransportError::Io {
        doing: Doing::Bind,
        kind,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(kind, ErrorKind::AddrInUse);
    drop(listener);
    Listener::bind(&endpoint).unwrap();
}

async fn open(endpoint: &Endpoint) -> (ogee_transport::Connection, ogee_transport::Connection) {
    pair(
        endpoint,
        ConnectionOptions::default(),
        ConnectionOptions::default(),
    )
    .await
}

async fn expect_sequences(receiver: &mut FrameReceiver, count: u64) {
    for sequence in 0..count {
        let frame = receiver.recv().await.unwrap();
        assert_eq!(frame.header.sequence.get(), sequence);
        assert!(
            frame.payload[..] == bytes(frame.payload.len())[..],
            "payload of {sequence}"
        );
    }
}
