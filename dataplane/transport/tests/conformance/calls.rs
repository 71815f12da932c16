//! Request and reply: matching, credits, loss.

use crate::support::{
    MS, bytes, client, echo, echoing, handler, serve, serve_with, server, standing, write,
};
use ogee_proto::wire::{FrameKind, Status};
use ogee_runtime::{sleep, spawn, timeout, yield_now};
use ogee_transport::{
    CallError, Caller, CallerOptions, Endpoint, Frame, Peer, Service, ServiceOptions,
    TransportError, connect, metrics,
};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

type Held = Rc<RefCell<Vec<(Peer, Frame)>>>;

/// A service that keeps every request until told otherwise.
fn holding(endpoint: &Endpoint, credits: u32) -> (Service, Held) {
    let held = Held::default();
    let keep = Rc::clone(&held);
    let hold = handler(move |peer, frame| keep.borrow_mut().push((peer, frame)));
    (serve(endpoint, server().with_credits(credits), hold), held)
}

async fn wait_held(held: &Held, count: usize) {
    while held.borrow().len() < count {
        sleep(MS).await;
    }
}

fn answer_all(held: &Held) {
    for (peer, frame) in held.take().into_iter().rev() {
        peer.reply(echo(frame)).unwrap();
    }
}

pub async fn replies_out_of_order_find_their_calls(endpoint: Endpoint) {
    const CALLS: u64 = 100;
    let (service, held) = holding(&endpoint, 128);
    let caller = Caller::new(service.endpoint().clone(), client());
    let calls: Vec<_> = (0..CALLS)
        .map(|sequence| {
            let caller = caller.clone();
            let len = usize::try_from(sequence).unwrap() * 1000;
            spawn(async move { caller.call(write(sequence, bytes(len))).await })
        })
        .collect();
    wait_held(&held, 100).await;
    answer_all(&held);
    for (sequence, call) in (0..).zip(calls) {
        let reply = call.await.unwrap().unwrap();
        assert_eq!(reply.header.kind, FrameKind::Reply);
        assert_eq!(reply.header.sequence.get(), sequence);
        assert_eq!(reply.payload.len() as u64, sequence * 1000);
    }
}

pub async fn calls_stay_within_the_credits(endpoint: Endpoint) {
    const CREDITS: u32 = 4;
    let most = Rc::new(Cell::new(0));
    let seen = Rc::clone(&most);
    let slow = handler(move |peer, frame| {
        seen.set(seen.get().max(peer.in_flight()));
        drop(spawn(async move {
            sleep(MS).await;
            peer.reply(echo(frame)).unwrap();
        }));
    });
    let service = serve(&endpoint, server().with_credits(CREDITS), slow);
    let caller = Caller::new(service.endpoint().clone(), client());
    let calls: Vec<_> = (0..40)
        .map(|sequence| {
            let caller = caller.clone();
            spawn(async move { caller.call(write(sequence, bytes(10))).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(most.get(), CREDITS, "all credits are used, and no more");
}

pub async fn a_call_without_a_credit_was_not_sent(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint, 1);
    let caller = Caller::new(service.endpoint().clone(), client());
    standing(&caller).await;
    let first = caller.clone();
    let first = spawn(async move { first.call(write(1, bytes(1))).await });
    wait_held(&held, 1).await;
    let limit = 30 * MS;
    let error = caller
        .call_within(write(2, bytes(1)), limit)
        .await
        .unwrap_err();
    assert_eq!(error, CallError::Timeout { sent: false, limit });
    assert!(!error.outcome_unknown());
    answer_all(&held);
    first.await.unwrap().unwrap();
}

pub async fn a_late_reply_reaches_nobody_and_returns_its_credit(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint, 1);
    let caller = Caller::new(service.endpoint().clone(), client());
    standing(&caller).await;
    let (before, limit) = (metrics().replies_unmatched, 30 * MS);
    let error = caller
        .call_within(write(1, bytes(1)), limit)
        .await
        .unwrap_err();
    assert_eq!(error, CallError::Timeout { sent: true, limit });
    assert!(error.outcome_unknown());
    let next = caller.clone();
    let next = spawn(async move { next.call(write(2, bytes(2))).await });
    sleep(10 * MS).await;
    assert_eq!(
        held.borrow().len(),
        1,
        "the first still holds the only credit"
    );
    answer_all(&held);
    wait_held(&held, 1).await;
    answer_all(&held);
    let reply = next.await.unwrap().unwrap();
    assert_eq!(reply.header.sequence.get(), 2);
    assert_eq!(metrics().replies_unmatched - before, 1);
}

pub async fn a_cancelled_call_returns_its_credit(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint, 1);
    let caller = Caller::new(service.endpoint().clone(), client());
    standing(&caller).await;
    for sequence in 1..4 {
        let call = caller.call(write(sequence, bytes(1)));
        assert!(timeout(20 * MS, call).await.is_err(), "nobody answers");
        wait_held(&held, 1).await;
        let before = metrics().replies_unmatched;
        answer_all(&held);
        // The credit comes back with the reply, and the next call has little time.
        while metrics().replies_unmatched == before {
            sleep(MS).await;
        }
    }
}

pub async fn a_lost_connection_fails_its_calls_and_heals(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint, 8);
    let (endpoint, before) = (service.endpoint().clone(), metrics().reconnects);
    let caller = Caller::new(endpoint.clone(), client());
    let pending = caller.clone();
    let pending = spawn(async move { pending.call(write(1, bytes(1))).await });
    wait_held(&held, 1).await;
    let (peer, request) = held.borrow_mut().pop().unwrap();
    service.close().await;
    let lost = CallError::Disconnected {
        sent: true,
        cause: TransportError::PeerClosed,
    };
    assert_eq!(pending.await.unwrap().unwrap_err(), lost);
    assert!(peer.is_closed() && peer.reply(echo(request)).is_err());
    assert_eq!(peer.closed().await, TransportError::Closed);

    let _service = serve(&endpoint, server(), echoing());
    let reply = loop {
        match caller.call(write(2, bytes(2))).await {
            Ok(reply) => break reply,
            Err(error) => assert!(!error.outcome_unknown(), "{error}"),
        }
    };
    assert_eq!(reply.header.sequence.get(), 2);
    assert_eq!(metrics().reconnects - before, 1);
}

pub async fn nobody_there_is_unreachable(endpoint: Endpoint) {
    // Claimed and given back, so that nobody listens there.
    let endpoint = serve(&endpoint, server(), echoing()).endpoint().clone();
    sleep(10 * MS).await;
    let options = CallerOptions {
        connect_wait: 500 * MS,
        ..CallerOptions::default()
    };
    let caller = Caller::with_options(endpoint.clone(), client(), options);
    let error = caller.call(write(1, bytes(1))).await.unwrap_err();
    let CallError::Unreachable {
        endpoint: named,
        cause: Some(TransportError::Io { .. }),
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(named, endpoint);
    assert!(caller.peer().is_none());
}

pub async fn a_peer_that_takes_no_requests_is_unreachable(endpoint: Endpoint) {
    let service = serve(&endpoint, server().with_credits(0), echoing());
    let caller = Caller::new(service.endpoint().clone(), client());
    let error = caller.call(write(1, bytes(1))).await.unwrap_err();
    assert!(
        matches!(
            &error,
            CallError::Unreachable {
                cause: Some(TransportError::NoCredits),
                ..
            }
        ),
        "{error:?}"
    );
}

pub async fn exceeding_the_credits_ends_the_connection(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint, 3);
    let before = metrics().credits_exceeded;
    let (sender, mut receiver) = connect(service.endpoint(), &client())
        .await
        .unwrap()
        .split();
    for sequence in 1..=10 {
        sender.try_send(write(sequence, bytes(100 << 10))).unwrap();
    }
    let reply = receiver.recv().await.unwrap();
    assert_eq!(reply.header.status, Status::BadRequest);
    assert_eq!(
        reply.header.sequence.get(),
        4,
        "names the frame that went too far"
    );
    let cause = TransportError::CreditsExceeded { offered: 3 };
    assert_eq!(&reply.meta[..], cause.to_string().as_bytes());
    assert_eq!(
        receiver.recv().await.unwrap_err(),
        TransportError::PeerClosed
    );
    assert_eq!(held.borrow().len(), 3);
    let (peer, request) = held.borrow_mut().pop().unwrap();
    assert_eq!(peer.closed().await, cause);
    assert!(peer.reply(echo(request)).is_err());
    assert_eq!(metrics().credits_exceeded - before, 1);
}

pub async fn handlers_see_frames_in_order(endpoint: Endpoint) {
    const CALLS: u64 = 200;
    let seen = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&seen);
    let note = handler(move |peer, frame| {
        keep.borrow_mut().push(frame.header.sequence.get());
        drop(peer.reply(echo(frame)));
    });
    let service = serve(&endpoint, server(), note);
    let caller = Caller::new(service.endpoint().clone(), client());
    caller.call(write(0, Vec::new())).await.unwrap();
    let mut calls = Vec::new();
    for sequence in 1..CALLS {
        let caller = caller.clone();
        calls.push(spawn(async move {
            caller.call(write(sequence, bytes(3000))).await
        }));
        yield_now().await;
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(*seen.borrow(), (0..CALLS).collect::<Vec<_>>());
}

pub async fn too_many_connections_are_refused(endpoint: Endpoint) {
    let options = ServiceOptions {
        connections_max: 2,
        ..ServiceOptions::default()
    };
    let service = serve_with(&endpoint, server(), options, echoing());
    let first = connect(service.endpoint(), &client()).await.unwrap();
    let second = connect(service.endpoint(), &client()).await.unwrap();
    assert!(connect(service.endpoint(), &client()).await.is_err());
    drop((first, second));
    let again = timeout(Duration::from_secs(20), async {
        while connect(service.endpoint(), &client()).await.is_err() {
            sleep(5 * MS).await;
        }
    });
    again.await.expect("room again once the others have left");
}
