//! Whose memory payloads are in, and for how long.

use crate::support::{MS, bytes, client, echo, frame, handler, serve, server, standing, write};
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_runtime::{Payload, sleep, timeout};
use ogee_transport::{Caller, Endpoint, Frame, Peer, metrics};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

const PAGE: usize = 4096;

pub fn read(sequence: u64, length: usize) -> Frame {
    let mut request = frame(FrameKind::Read, sequence, Vec::new());
    request.header.length = u32::try_from(length).unwrap();
    request
}

fn is_at_page(payload: &Payload) -> bool {
    (payload.as_ptr() as usize).is_multiple_of(PAGE)
}

pub async fn reads_are_answered_into_lent_memory(endpoint: Endpoint) {
    let answer = Rc::new(Cell::new(0));
    let len = Rc::clone(&answer);
    let answering = handler(move |peer: Peer, request: Frame| {
        let header = FrameHeader::reply(&request.header, Status::Ok);
        peer.reply(Frame::with_payload(header, bytes(len.get())))
            .unwrap();
    });
    let service = serve(&endpoint, server(), answering);
    let caller = Caller::new(service.endpoint().clone(), client());
    let (small, large) = (16 << 10, 1 << 20);
    // What is asked for, what comes, and whether it went into lent memory.
    for (asked, comes, is_lent) in [
        (large, large, true),
        (large, small + 1, true),
        (large, small, false),
        (large, 0, false),
        (100 << 10, (100 << 10) - 3, true),
        (100 << 10, large, false),
        (small, small, false),
        (0, 100 << 10, false),
    ] {
        answer.set(comes);
        // More often than there are pieces: they come back.
        for round in 0..20 {
            let before = metrics().bytes_copied;
            let reply = caller.call(read(round, asked)).await.unwrap();
            assert!(reply.payload[..] == bytes(comes)[..], "{comes} of {asked}");
            let copied = metrics().bytes_copied - before;
            let copies = if is_lent || comes <= small { 1 } else { 2 };
            // And the Hello, once.
            assert!(
                (copies * comes as u64..=copies * comes as u64 + 100).contains(&copied),
                "{comes} of {asked}: {copied} bytes copied"
            );
            if is_lent {
                assert!(is_at_page(&reply.payload));
            }
        }
    }
}

pub async fn payloads_are_not_copied_where_they_arrive(endpoint: Endpoint) {
    let aligned = Rc::new(Cell::new(0));
    let seen = Rc::clone(&aligned);
    let looking = handler(move |peer, request| {
        seen.set(seen.get() + usize::from(is_at_page(&request.payload)));
        let header = FrameHeader::reply(&request.header, Status::Ok);
        peer.reply(Frame::new(header)).unwrap();
    });
    let service = serve(&endpoint, server(), looking);
    let caller = Caller::new(service.endpoint().clone(), client());
    caller.call(write(0, Vec::new())).await.unwrap();
    aligned.set(0);
    let lens = [
        512,
        PAGE,
        PAGE + 1,
        16 << 10,
        (16 << 10) + 1,
        64 << 10,
        1 << 20,
    ];
    let before = metrics().bytes_copied;
    for len in lens {
        caller.call(write(1, bytes(len))).await.unwrap();
    }
    // Once, by who sends, into registered memory.
    let sum: usize = lens.iter().sum();
    assert_eq!(metrics().bytes_copied - before, sum as u64);
    assert_eq!(aligned.get(), lens.len());
}

/// As a leader does with what its followers get, and a reader that is answered with what was written.
pub async fn what_was_received_is_sent_on_without_a_copy(endpoint: Endpoint) {
    let kept: Rc<RefCell<Vec<Payload>>> = Rc::default();
    let keep = Rc::clone(&kept);
    let keeping = handler(move |peer, request| {
        keep.borrow_mut().push(request.payload.clone());
        let header = FrameHeader::reply(&request.header, Status::Ok);
        peer.reply(Frame::new(header)).unwrap();
    });
    let follower = serve(&endpoint, server(), keeping);
    let to_follower = Caller::new(follower.endpoint().clone(), client());
    let stored: Rc<RefCell<Payload>> = Rc::default();
    let relaying = handler(move |peer, request| {
        let header = FrameHeader::reply(&request.header, Status::Ok);
        if request.header.kind == FrameKind::Read {
            let payload = stored.borrow().clone();
            peer.reply(Frame::with_payload(header, payload)).unwrap();
            return;
        }
        *stored.borrow_mut() = request.payload.clone();
        let forward = to_follower.clone();
        drop(ogee_runtime::spawn(async move {
            // A part of it too, which does not begin at a page.
            for payload in [request.payload.clone(), request.payload.slice(100..)] {
                let forwarded = Frame::with_payload(request.header, payload);
                forward.call(forwarded).await.unwrap();
            }
            peer.reply(Frame::new(header)).unwrap();
        }));
    });
    let leader = serve(&endpoint, server(), relaying);
    let caller = Caller::new(leader.endpoint().clone(), client());
    caller.call(write(0, bytes(512))).await.unwrap();
    for len in [512, PAGE, 16 << 10, (16 << 10) + 512, 64 << 10, 1 << 20] {
        kept.borrow_mut().clear();
        let before = metrics().bytes_copied;
        caller.call(write(1, bytes(len))).await.unwrap();
        let copied = metrics().bytes_copied - before;
        assert_eq!(copied, len as u64, "once, by the client");
        let whole = bytes(len);
        let parts: Vec<Payload> = kept.take();
        assert!(
            parts[0][..] == whole[..] && parts[1][..] == whole[100..],
            "{len}"
        );
        let before = metrics().bytes_copied;
        let reply = caller.call(read(2, len)).await.unwrap();
        assert!(reply.payload[..] == whole[..], "{len}");
        assert_eq!(metrics().bytes_copied, before, "{len}, as it lies");
    }
}

pub async fn a_read_that_is_given_up_gives_its_memory_back(endpoint: Endpoint) {
    let held: Rc<RefCell<Vec<(Peer, Frame)>>> = Rc::default();
    let keep = Rc::clone(&held);
    let holding = handler(move |peer, frame| keep.borrow_mut().push((peer, frame)));
    let service = serve(&endpoint, server(), holding);
    let caller = Caller::new(service.endpoint().clone(), client());
    standing(&caller).await;
    for round in 0..40 {
        let call = caller.call(read(round, 1 << 20));
        assert!(timeout(20 * MS, call).await.is_err(), "nobody answers");
        while held.borrow().is_empty() {
            sleep(MS).await;
        }
        let before = metrics().replies_unmatched;
        for (peer, request) in held.take() {
            let header = FrameHeader::reply(&request.header, Status::Ok);
            peer.reply(Frame::with_payload(header, bytes(1 << 20)))
                .unwrap();
        }
        while metrics().replies_unmatched == before {
            sleep(MS).await;
        }
    }
    // Answered without parts, so there still is memory to lend.
    let before = metrics().bytes_copied;
    let asked = caller.clone();
    let call = ogee_runtime::spawn(async move { asked.call(read(99, 1 << 20)).await });
    while held.borrow().is_empty() {
        sleep(MS).await;
    }
    let (peer, request) = held.borrow_mut().pop().unwrap();
    let header = FrameHeader::reply(&request.header, Status::Ok);
    peer.reply(Frame::with_payload(header, bytes(1 << 20)))
        .unwrap();
    assert!(call.await.unwrap().unwrap().payload[..] == bytes(1 << 20)[..]);
    assert_eq!(metrics().bytes_copied - before, 1 << 20);
}

pub async fn what_users_keep_does_not_stop_the_port(endpoint: Endpoint) {
    let kept: Rc<RefCell<Vec<Frame>>> = Rc::default();
    let keep = Rc::clone(&kept);
    let keeping = handler(move |peer, request| {
        keep.borrow_mut().push(request.clone());
        drop(peer.reply(echo(request)));
    });
    let service = serve(&endpoint, server(), keeping);
    let caller = Caller::new(service.endpoint().clone(), client());
    // More than the port has pieces, of both kinds.
    for round in 0..600 {
        let reply = caller.call(write(round, bytes(PAGE))).await.unwrap();
        assert_eq!(reply.payload.len(), PAGE);
    }
    for round in 0..24 {
        let reply = caller.call(write(round, bytes(300 << 10))).await.unwrap();
        assert!(reply.payload[..] == bytes(300 << 10)[..]);
    }
    assert!(
        kept.borrow()
            .iter()
            .all(|frame| frame.payload[..] == bytes(frame.payload.len())[..])
    );
}
