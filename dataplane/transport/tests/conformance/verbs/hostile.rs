//! Peers that break the rules, made of verbs.

use super::raw::{BODY, FOR_ANSWER, LENT, Prefix, Raw, good_offer, offer, whole};
use crate::hostile::hello_frame as hello;
use crate::support::{MS, bytes, client, echoing, frame, handler, serve, server, write};
use ogee_proto::wire::{FrameKind, WIRE_VERSION, WireError};
use ogee_rdma::{Access, EventKind, Pair, RemoteMemory, WorkError};
use ogee_runtime::{now, sleep, spawn, timeout};
use ogee_transport::rdma::RdmaFault;
use ogee_transport::{
    Caller, ConnectionOptions, Endpoint, Frame, Listener, Peer, Service, TransportError, connect,
};
use std::time::Duration;

/// A service with a raw peer.
async fn served(endpoint: &Endpoint) -> (Service, Raw, Pair, Peer) {
    let service = serve(endpoint, server(), echoing());
    let mut raw = Raw::new();
    let pair = raw.connect(service.endpoint(), &hello()).await;
    while service.peers().is_empty() {
        sleep(MS).await;
    }
    let peer = service.peers().pop().unwrap();
    (service, raw, pair, peer)
}

async fn still_serves(service: &Service) {
    let caller = Caller::new(service.endpoint().clone(), client());
    for len in [10, BODY + 1] {
        let reply = caller.call(write(1, bytes(len))).await.unwrap();
        assert!(reply.payload[..] == bytes(len)[..]);
    }
}

async fn ended(peer: &Peer) -> TransportError {
    let ended = timeout(Duration::from_secs(10), peer.closed()).await;
    ended.expect("it ends")
}

pub async fn another_version_is_refused_and_named(endpoint: Endpoint) {
    let mut listener = Listener::bind(&endpoint).unwrap();
    let at = listener.endpoint().clone();
    let mut raw = Raw::new();
    for (wire, rdma) in [
        (WIRE_VERSION + 1, 1),
        (WIRE_VERSION - 1, 1),
        (WIRE_VERSION, 2),
    ] {
        let pair = raw.ask(&at, offer(wire, rdma, 8, 0)).await;
        let incoming = listener.accept().await.unwrap();
        let server = server();
        let refused = incoming.handshake(&server, ConnectionOptions::default());
        let error = refused.await.err().unwrap();
        let expected: TransportError = if rdma == 1 {
            let (peer, ours) = (wire, WIRE_VERSION);
            WireError::Version { peer, ours }.into()
        } else {
            RdmaFault::Version { peer: 2, ours: 1 }.into()
        };
        assert_eq!(error, expected);
        let event = raw.event(pair.key()).await;
        assert!(matches!(event.kind, EventKind::Rejected), "{event:?}");
        // It says its own, and why.
        assert!(
            event.data.starts_with(&offer(WIRE_VERSION, 1, 0, 1)),
            "{event:?}"
        );
    }
}

pub async fn an_acceptor_of_another_version_is_refused(endpoint: Endpoint) {
    let mut raw = Raw::new();
    let (listener, at) = raw.listen(&endpoint);
    let (peer, ours) = (WIRE_VERSION + 7, WIRE_VERSION);
    let expected: TransportError = WireError::Version { peer, ours }.into();
    let (to, other) = (at.clone(), offer(peer, 1, 0, 1));
    let connecting = spawn(async move { connect(&to, &client()).await.err() });
    raw.refuse(&listener, &other).await;
    assert_eq!(connecting.await.unwrap(), Some(expected.clone()));
    // Also one that accepts all the same.
    let (to, other) = (at, offer(peer, 1, 8, 0));
    let connecting = spawn(async move { connect(&to, &client()).await.err() });
    let _pair = raw.accept(&listener, other).await;
    assert_eq!(connecting.await.unwrap(), Some(expected));
}

pub async fn a_stranger_is_refused(endpoint: Endpoint) {
    let service = serve(&endpoint, server(), echoing());
    let mut raw = Raw::new();
    let few = offer(WIRE_VERSION, 1, 3, 0);
    for words in [b"GET / HTTP/1.1".to_vec(), Vec::new(), few] {
        let pair = raw.ask(service.endpoint(), words).await;
        let event = raw.event(pair.key()).await;
        assert!(matches!(event.kind, EventKind::Rejected), "{event:?}");
    }
    // One that is accepted, and then says something else than Hello.
    let pair = raw.ask(service.endpoint(), good_offer()).await;
    let event = raw.event(pair.key()).await;
    assert!(matches!(event.kind, EventKind::Established), "{event:?}");
    raw.send(&pair, Prefix::new(1), &whole(&write(1, Vec::new())), &[]);
    let event = raw.event(pair.key()).await;
    assert!(matches!(event.kind, EventKind::Disconnected), "{event:?}");
    assert!(service.peers().is_empty());
    still_serves(&service).await;
}

pub async fn a_wrong_key_ends_its_connection_alone(endpoint: Endpoint) {
    let (service, raw, pair, peer) = served(&endpoint).await;
    let lent = raw.lend(&pair, 64 << 10, Access::Read);
    let mut prefix = Prefix::new(1);
    (prefix.flags, prefix.loan, prefix.memory) = (LENT, 1, lent.remote());
    prefix.memory.key ^= 0x5500;
    raw.send(&pair, prefix, &whole(&write(1, bytes(64 << 10))), &[]);
    let fault = RdmaFault::Work(WorkError::RemoteAccess);
    assert_eq!(ended(&peer).await, fault.into());
    still_serves(&service).await;
}

pub async fn a_wrong_key_for_an_answer_ends_its_connection_alone(endpoint: Endpoint) {
    let answering = handler(|peer, request| {
        let reply = crate::support::echo(request);
        drop(peer.reply(Frame::with_payload(reply.header, bytes(64 << 10))));
    });
    let service = serve(&endpoint, server(), answering);
    let mut raw = Raw::new();
    let pair = raw.connect(service.endpoint(), &hello()).await;
    let mut request = frame(FrameKind::Read, 1, Vec::new());
    request.header.length = 64 << 10;
    let mut prefix = Prefix::new(1);
    (prefix.flags, prefix.loan) = (FOR_ANSWER, 1);
    prefix.memory = RemoteMemory {
        address: 4096,
        key: 77,
        len: 64 << 10,
    };
    while service.peers().is_empty() {
        sleep(MS).await;
    }
    let peer = service.peers().pop().unwrap();
    raw.send(&pair, prefix, &whole(&request), &[]);
    let fault = RdmaFault::Work(WorkError::RemoteAccess);
    assert_eq!(ended(&peer).await, fault.into());
    let caller = Caller::new(service.endpoint().clone(), client());
    let reply = caller.call(request).await.unwrap();
    assert!(reply.payload[..] == bytes(64 << 10)[..]);
}

#[expect(clippy::too_many_lines, reason = "a table of lies")]
pub async fn messages_that_lie_end_the_connection(endpoint: Endpoint) {
    let (len, some) = (64_u32 << 10, bytes(100));
    let lent = |flags, len| {
        let mut prefix = Prefix::new(1);
        (prefix.flags, prefix.memory.len) = (flags, len);
        prefix
    };
    let (good, large) = (
        whole(&write(1, some.clone())),
        whole(&write(1, bytes(64 << 10))),
    );
    let mut long = large.clone();
    long[92..96].copy_from_slice(&((1_u32 << 20) + 1).to_le_bytes());
    let crc = ogee_proto::checksum::crc32c(&long[..124]);
    long[124..128].copy_from_slice(&crc.to_le_bytes());
    let mut damaged = good.clone();
    damaged[50] ^= 1;
    let mut meta = write(1, Vec::new());
    meta.meta = bytes(97).into();
    let mut body = Prefix::new(1);
    body.body_len = 99;
    let mut credits = Prefix::new(3);
    credits.credits = 500;
    let lies: &[(&str, Prefix, &[u8], &[u8])] = &[
        (
            "a payload past its limit",
            lent(LENT, (1 << 20) + 1),
            &long,
            &[],
        ),
        ("another length lent", lent(LENT, len - 1), &large, &[]),
        (
            "nothing lent",
            lent(LENT, 0),
            &whole(&write(1, Vec::new())),
            &[],
        ),
        ("lent, and sent", lent(LENT, 100), &good, &some),
        ("a loan that it was not given", lent(8, 100), &good, &[]),
        ("a payload that is not there", Prefix::new(1), &large, &some),
        (
            "a payload that is longer",
            Prefix::new(1),
            &good,
            &bytes(101),
        ),
        ("a body of another length", body, &good, &some),
        ("a header with a flaw", Prefix::new(1), &damaged, &some),
        (
            "a body with a flaw",
            Prefix::new(1),
            &good,
            &bytes(101)[1..],
        ),
        (
            "a meta that is not there",
            Prefix::new(1),
            &whole(&meta)[..128],
            &[],
        ),
        ("a taken loan that is none", Prefix::new(4), &[], &[]),
        ("a part of nothing", Prefix::new(2), &[], &[]),
        ("credits that are none", credits, &[], &[]),
        ("an unknown kind", Prefix::new(9), &[], &[]),
    ];
    let (service, mut raw, mut pair, mut peer) = served(&endpoint).await;
    for (what, prefix, frame, body) in lies {
        raw.send(&pair, *prefix, frame, body);
        let error = ended(&peer).await;
        assert!(matches!(error, TransportError::Wire(_)), "{what}: {error}");
        raw = Raw::new();
        pair = raw.connect(service.endpoint(), &hello()).await;
        while service.peers().iter().all(Peer::is_closed) {
            sleep(MS).await;
        }
        peer = service.peers().pop().unwrap();
    }
    still_serves(&service).await;
}

pub async fn a_message_longer_than_the_buffers_ends_the_connection(endpoint: Endpoint) {
    let (service, raw, pair, peer) = served(&endpoint).await;
    raw.send(&pair, Prefix::new(2), &[], &bytes(BODY + 1));
    let error = ended(&peer).await;
    // Hardware says so, or breaks the connection.
    assert!(
        matches!(
            error,
            TransportError::Rdma(RdmaFault::Work(_)) | TransportError::PeerClosed
        ),
        "{error}"
    );
    still_serves(&service).await;
}

pub async fn messages_beyond_the_grant_end_the_connection(endpoint: Endpoint) {
    // Nobody reads, so nothing is given back.
    let mut listener = Listener::bind(&endpoint).unwrap();
    let at = listener.endpoint().clone();
    let accepted = spawn(async move {
        let incoming = listener.accept().await.unwrap();
        incoming
            .handshake(&server(), ConnectionOptions::default())
            .await
            .unwrap()
    });
    let mut raw = Raw::new();
    let pair = raw.connect(&at, &hello()).await;
    let (_sender, mut receiver) = accepted.await.unwrap().split();
    for sequence in 0..20 {
        raw.send(
            &pair,
            Prefix::new(1),
            &whole(&write(sequence, Vec::new())),
            &[],
        );
    }
    sleep(200 * MS).await;
    // What came before is handed up.
    let mut came = 0;
    let error = loop {
        match receiver.recv().await {
            Ok(frame) => assert_eq!(frame.header.sequence.get(), came),
            Err(error) => break error,
        }
        came += 1;
    };
    assert!(matches!(error, TransportError::Wire(_)), "{error}");
    assert!((4..20).contains(&came), "{came} of 16 or so");
}

pub async fn an_acceptor_may_not_lend(endpoint: Endpoint) {
    let mut raw = Raw::new();
    let (listener, at) = raw.listen(&endpoint);
    let connecting = spawn(async move { connect(&at, &client()).await.unwrap() });
    let pair = raw.accept(&listener, good_offer()).await;
    raw.event(pair.key()).await;
    raw.send(&pair, Prefix::new(1), &whole(&hello()), &[]);
    let (_sender, mut receiver) = connecting.await.unwrap().split();
    let lent = raw.lend(&pair, 64 << 10, Access::Read);
    let mut prefix = Prefix::new(1);
    (prefix.flags, prefix.loan, prefix.memory) = (LENT, 1, lent.remote());
    raw.send(&pair, prefix, &whole(&write(1, bytes(64 << 10))), &[]);
    let error = receiver.recv().await.unwrap_err();
    assert!(
        matches!(error, TransportError::Wire(WireError::Field { .. })),
        "{error}"
    );
}

pub async fn a_peer_that_goes_while_it_is_read_from(endpoint: Endpoint) {
    let (service, mut raw, pair, peer) = served(&endpoint).await;
    for loan in 1..=4 {
        let lent = raw.lend(&pair, 1 << 20, Access::Read);
        let mut prefix = Prefix::new(1);
        (prefix.flags, prefix.loan, prefix.memory) = (LENT, loan, lent.remote());
        raw.send(&pair, prefix, &whole(&write(1, vec![7; 1 << 20])), &[]);
        drop(lent);
    }
    // The last of them is on its way, or read; then the queue pair is gone.
    let is_sent = |it: &ogee_rdma::Completion| it.token == 1;
    for _ in 0..4 {
        raw.completion(is_sent).await;
    }
    drop(pair);
    let began = now();
    let error = ended(&peer).await;
    let elapsed = now() - began;
    assert!(
        elapsed < Duration::from_secs(3),
        "{error} after {elapsed:?}"
    );
    still_serves(&service).await;
}

pub async fn a_silent_peer_is_noticed_by_default_within_two_seconds(endpoint: Endpoint) {
    let (_service, _raw, _pair, peer) = served(&endpoint).await;
    let began = now();
    let silence = Duration::from_millis(1500);
    assert_eq!(ended(&peer).await, TransportError::PeerSilent { silence });
    let elapsed = now() - began;
    assert!(
        elapsed < Duration::from_secs(2) && elapsed > Duration::from_secs(1),
        "{elapsed:?}"
    );
}
