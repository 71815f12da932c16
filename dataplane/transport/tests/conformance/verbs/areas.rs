//! Payloads that are sent from where somebody else has put them: what a device was read into, a user's memory.

use super::memory::read;
use super::raw::{FOR_ANSWER, Prefix, Raw, WRITTEN, good_offer, whole};
use crate::hostile::hello_with_credits;
use crate::support::{
    MS, bytes, caller_options, client, handler, mute, serve, server, standing, write,
};
use bytes::Bytes;
use ogee_proto::wire::{FrameHeader, FrameKind, Status};
use ogee_rdma::RemoteMemory;
use ogee_runtime::area::{self, Announced, announce};
use ogee_runtime::{Buffer, Loan, Payload, Target, sleep, timeout};
use ogee_transport::{Caller, Endpoint, Frame, Peer, Service, metrics};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// Of each way: the body of a message at a page and not, a body of one byte, lent or written.
const LENS: [usize; 7] = [1, 512, 4096, 16 << 10, (16 << 10) + 512, 128 << 10, 1 << 20];

/// Bytes where a device would have put them.
fn transferred(len: usize) -> Payload {
    let mut buffer = Buffer::for_transfer(len).expect("room");
    buffer.extend_from_slice(&bytes(len));
    Payload::from(buffer)
}

async fn connected(service: &Service) -> Caller {
    let caller = Caller::new(service.endpoint().clone(), client());
    standing(&caller).await;
    caller
}

/// Keeps what came, if that is as it should be, and answers.
fn checking(endpoint: &Endpoint) -> (Service, Rc<Cell<usize>>) {
    let seen = Rc::new(Cell::new(0));
    let counting = Rc::clone(&seen);
    let service = serve(
        endpoint,
        server(),
        handler(move |peer: Peer, request: Frame| {
            assert!(request.payload[..] == bytes(request.payload.len())[..]);
            counting.set(counting.get() + request.payload.len());
            let header = FrameHeader::reply(&request.header, Status::Ok);
            peer.reply(Frame::new(header)).unwrap();
        }),
    );
    (service, seen)
}

pub async fn what_a_device_has_read_is_sent_from_there(endpoint: Endpoint) {
    let at: Rc<RefCell<Vec<*const u8>>> = Rc::default();
    let answered = Rc::clone(&at);
    let answering = handler(move |peer: Peer, request: Frame| {
        let payload = transferred(request.header.length as usize);
        answered.borrow_mut().push(payload.as_ptr());
        let header = FrameHeader::reply(&request.header, Status::Ok);
        peer.reply(Frame::with_payload(header, payload)).unwrap();
    });
    let service = serve(&endpoint, server(), answering);
    let caller = connected(&service).await;
    caller.call(read(0, 512)).await.unwrap();
    for len in LENS {
        // More often than there are pieces: each comes back when the peer has it.
        for round in 0..10 {
            let before = metrics();
            let reply = caller.call(read(round, len)).await.unwrap();
            assert!(reply.payload[..] == bytes(len)[..], "{len}");
            let after = metrics();
            assert_eq!(after.bytes_copied, before.bytes_copied, "{len}");
            assert_eq!(after.transfers_elsewhere, before.transfers_elsewhere);
        }
    }
    // They lay in the one area that there is, which the port has registered.
    let areas = area::all();
    assert_eq!(areas.len(), 1);
    let (start, len) = (areas[0].start().addr().get(), areas[0].len());
    for at in at.take() {
        assert!((start..start + len).contains(&at.addr()));
    }
    assert_eq!(metrics().registered_bytes, len as u64);
}

pub async fn a_payload_is_lent_from_the_memory_that_it_was_made_in(endpoint: Endpoint) {
    let (service, seen) = checking(&endpoint);
    let caller = connected(&service).await;
    caller.call(write(0, Vec::new())).await.unwrap();
    for len in LENS {
        let before = metrics().bytes_copied;
        let mut request = write(1, Vec::new());
        request.payload = transferred(len);
        caller.call(request).await.unwrap();
        assert_eq!(metrics().bytes_copied, before, "{len}");
    }
    assert_eq!(seen.get(), LENS.iter().sum::<usize>());
}

/// Memory of a user, who hears when nobody needs it any more.
struct Owned {
    bytes: Arc<Vec<u8>>,
    is_over: Rc<Cell<bool>>,
}

struct Owner {
    _bytes: Arc<Vec<u8>>,
    is_over: Rc<Cell<bool>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.is_over.set(true);
    }
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Owned {
    fn new(len: usize) -> Self {
        Self {
            bytes: Arc::new(bytes(len)),
            is_over: Rc::default(),
        }
    }

    fn announce(&self) -> Announced {
        let (bytes, is_over) = (Arc::clone(&self.bytes), Rc::clone(&self.is_over));
        let owner = Rc::new(Owner {
            _bytes: bytes,
            is_over,
        });
        let start = NonNull::from_ref(&self.bytes[0]);
        // SAFETY: the owner holds the vector, which nobody changes.
        unsafe { announce(start, self.bytes.len(), "a test's memory", owner) }
    }

    /// The first so many.
    fn payload(&self, len: usize) -> Payload {
        let all = Bytes::from_owner(Shared(Arc::clone(&self.bytes)));
        Payload::from(all.slice(..len))
    }
}

async fn registered(before: u64, len: usize) {
    while metrics().registered_bytes < before + len as u64 {
        sleep(MS).await;
    }
}

/// Bytes that were copied to be sent, of payloads of all lengths.
async fn copied(caller: &Caller, owned: &Owned) -> Vec<u64> {
    let mut copied = Vec::new();
    for len in LENS {
        let before = metrics();
        let mut request = write(1, Vec::new());
        request.payload = owned.payload(len);
        caller.call(request).await.unwrap();
        let after = metrics();
        assert_eq!(after.bytes_copied_in, before.bytes_copied_in);
        assert_eq!(
            after.bytes_copied - before.bytes_copied,
            after.bytes_copied_out - before.bytes_copied_out
        );
        copied.push(after.bytes_copied - before.bytes_copied);
    }
    copied
}

/// Waits until nobody needs the memory any more.
async fn over(owned: &Owned) {
    while !owned.is_over.replace(false) {
        sleep(MS).await;
    }
}

pub async fn memory_of_others_is_sent_from_where_it_lies_while_it_is_announced(endpoint: Endpoint) {
    let (service, seen) = checking(&endpoint);
    let caller = connected(&service).await;
    caller.call(write(0, Vec::new())).await.unwrap();
    let owned = Owned::new(2 << 20);
    for _round in 0..3 {
        let before = metrics().registered_bytes;
        let announced = owned.announce();
        registered(before, 2 << 20).await;
        assert_eq!(copied(&caller, &owned).await, [0; LENS.len()]);
        assert!(!owned.is_over.get());
        drop(announced);
        over(&owned).await;
        let all = LENS.map(|len| len as u64);
        assert_eq!(copied(&caller, &owned).await, all);
    }
    assert_eq!(seen.get(), 6 * LENS.iter().sum::<usize>());
}

pub async fn memory_is_withdrawn_while_it_is_sent(endpoint: Endpoint) {
    let (service, seen) = checking(&endpoint);
    let caller = connected(&service).await;
    caller.call(write(0, Vec::new())).await.unwrap();
    for len in [4096, 1 << 20] {
        for turns in 0..30 {
            let owned = Owned::new(len);
            let before = metrics().registered_bytes;
            let announced = owned.announce();
            registered(before, len).await;
            let mut request = write(1, Vec::new());
            request.payload = owned.payload(len);
            let asked = caller.clone();
            let call = ogee_runtime::spawn(async move { asked.call(request).await });
            for _turn in 0..turns {
                ogee_runtime::yield_now().await;
            }
            drop(announced);
            call.await.unwrap().unwrap();
            over(&owned).await;
        }
    }
    assert_eq!(seen.get(), 30 * (4096 + (1 << 20)));
}

pub async fn what_cannot_be_registered_is_copied_and_counted(endpoint: Endpoint) {
    let (service, _seen) = checking(&endpoint);
    let caller = connected(&service).await;
    caller.call(write(0, Vec::new())).await.unwrap();
    // More than may be: see `on_rdma`.
    let owned = Owned::new(16 << 20);
    let before = metrics();
    let announced = owned.announce();
    while metrics().registrations_failed == before.registrations_failed {
        sleep(MS).await;
    }
    let mut request = write(1, Vec::new());
    request.payload = owned.payload(1 << 20);
    caller.call(request).await.unwrap();
    let after = metrics();
    assert_eq!(after.bytes_copied - before.bytes_copied, 1 << 20);
    assert_eq!(after.registered_bytes, before.registered_bytes);
    assert_eq!(after.registrations_failed - before.registrations_failed, 1);
    drop(announced);
    assert!(owned.is_over.get());
    // There is room for what is smaller.
    let small = Owned::new(1 << 20);
    let _announced = small.announce();
    registered(after.registered_bytes, 1 << 20).await;
}

pub async fn buffers_that_find_no_room_are_copied_and_counted(endpoint: Endpoint) {
    let (service, seen) = checking(&endpoint);
    let caller = connected(&service).await;
    caller.call(write(0, Vec::new())).await.unwrap();
    let all: Vec<Buffer> = std::iter::from_fn(|| Buffer::for_transfer(1 << 20)).collect();
    assert_eq!((all.len(), metrics().transfers_elsewhere), (4, 1));
    let before = metrics().bytes_copied;
    let mut request = write(1, Vec::new());
    let room = Buffer::for_transfer(1 << 20);
    let mut buffer = room.unwrap_or_else(|| Buffer::with_capacity(1 << 20));
    buffer.extend_from_slice(&bytes(1 << 20));
    request.payload = Payload::from(buffer);
    caller.call(request).await.unwrap();
    assert_eq!(metrics().bytes_copied - before, 1 << 20);
    assert_eq!((seen.get(), metrics().transfers_elsewhere), (1 << 20, 2));
}

/// Memory that answers are wanted in.
struct Wanted {
    start: NonNull<u8>,
    owner: Rc<Owner>,
    announced: Option<Announced>,
}

impl Wanted {
    /// Registered already.
    async fn new(len: usize) -> Self {
        let mut bytes = vec![0_u8; len];
        let start = NonNull::from_mut(bytes.as_mut_slice()).cast();
        let owner = Rc::new(Owner {
            _bytes: Arc::new(bytes),
            is_over: Rc::default(),
        });
        let before = metrics().registered_bytes;
        let held = Rc::clone(&owner);
        // SAFETY: the owner holds the vector, which is not touched any other way.
        let announced = unsafe { announce(start, len, "a test's memory", held) };
        registered(before, len).await;
        Self {
            start,
            owner,
            announced: Some(announced),
        }
    }

    fn target(&self, at: usize, len: usize) -> Target {
        let owner = Rc::clone(&self.owner);
        // SAFETY: within the vector that the owner holds.
        let start = unsafe { self.start.add(at) };
        // SAFETY: nobody looks at it but by what comes of it.
        unsafe { Target::new(start, len, owner) }
    }
}

fn read_to(sequence: u64, length: usize, into: Loan) -> Frame {
    let mut request = read(sequence, length);
    request.set_into(Some(into));
    request
}

pub async fn answers_are_written_where_they_are_wanted(endpoint: Endpoint) {
    let answer = Rc::new(Cell::new(0));
    let len = Rc::clone(&answer);
    let answering = handler(move |peer: Peer, request: Frame| {
        let header = FrameHeader::reply(&request.header, Status::Ok);
        let payload = transferred(len.get());
        peer.reply(Frame::with_payload(header, payload)).unwrap();
    });
    let service = serve(&endpoint, server(), answering);
    let caller = connected(&service).await;
    answer.set(1);
    caller.call(read(0, 1)).await.unwrap();
    let wanted = Wanted::new(2 << 20).await;
    // What is asked for, what comes, and whether it is written there.
    for (asked, comes, is_there) in [
        (1 << 20, 1 << 20, true),
        ((16 << 10) + 1, (16 << 10) + 1, true),
        (100 << 10, 50 << 10, true),
        (16 << 10, 16 << 10, false),
        (1 << 20, 4096, false),
    ] {
        for round in 0..10 {
            answer.set(comes);
            let target = wanted.target(100, asked);
            let (loan, lease) = target.lend();
            let before = metrics();
            let reply = caller.call(read_to(round, asked, loan)).await.unwrap();
            assert!(reply.payload[..] == bytes(comes)[..], "{comes} of {asked}");
            let after = metrics();
            assert_eq!(reply.payload.as_ptr() == target.start().as_ptr(), is_there);
            assert_eq!(target.holds(&reply.payload), is_there && asked == comes);
            assert_eq!(after.bytes_copied, before.bytes_copied, "by nobody");
            let in_place = if is_there { comes as u64 } else { 0 };
            assert_eq!(after.bytes_in_place - before.bytes_in_place, in_place);
            drop(reply);
            lease.over().await;
        }
    }
    // What is not registered is as ever.
    let mut elsewhere = vec![0; 1 << 20];
    let start = NonNull::from_mut(elsewhere.as_mut_slice()).cast();
    // SAFETY: it is not touched meanwhile.
    let target = unsafe { Target::new(start, 1 << 20, Rc::new(())) };
    answer.set(1 << 20);
    let (loan, lease) = target.lend();
    let reply = caller.call(read_to(1, 1 << 20, loan)).await.unwrap();
    assert!(!target.holds(&reply.payload) && reply.payload[..] == bytes(1 << 20)[..]);
    lease.over().await;
    let Wanted {
        owner, announced, ..
    } = wanted;
    drop(announced);
    assert_eq!(Rc::strong_count(&owner), 1, "nobody has it any more");
}

/// Keeps requests, and answers none.
type Held = Rc<RefCell<Vec<(Peer, Frame)>>>;

fn holding(endpoint: &Endpoint) -> (Service, Held) {
    let held: Held = Rc::default();
    let keep = Rc::clone(&held);
    let service = serve(
        endpoint,
        server(),
        handler(move |peer, frame| keep.borrow_mut().push((peer, frame))),
    );
    (service, held)
}

/// A call that is given up when its request has come.
async fn given_up(caller: &Caller, held: &Held, loan: Loan) {
    let call = caller.call(read_to(1, 1 << 20, loan));
    let mut call = std::pin::pin!(call);
    while held.borrow().is_empty() {
        let asked = timeout(MS, call.as_mut()).await;
        assert!(asked.is_err(), "nobody answers");
    }
}

pub async fn a_loan_that_is_recalled_is_over_before_its_answer(endpoint: Endpoint) {
    let wanted = Wanted::new(1 << 20).await;
    let target = wanted.target(0, 1 << 20);
    for is_written in [false, true, false] {
        // Another peer each time: one that was late is lent no more for a while.
        let (service, held) = holding(&endpoint);
        let caller = connected(&service).await;
        let (loan, lease) = target.lend();
        given_up(&caller, &held, loan).await;
        // Given up, it is still the peer's.
        assert!(timeout(50 * MS, lease.over()).await.is_err());
        lease.recall();
        lease.over().await;
        target.fill([&Payload::from(vec![7; 1 << 20])]);
        let (peer, request) = held.borrow_mut().pop().unwrap();
        let header = FrameHeader::reply(&request.header, Status::Ok);
        let connections = metrics().connections_rdma;
        if is_written {
            // Its key is void: nothing is written, and the connection is made anew.
            let late = Frame::with_payload(header, bytes(1 << 20));
            drop(peer.reply(late));
            while metrics().connections_rdma == connections {
                sleep(MS).await;
            }
            standing(&caller).await;
        } else {
            let before = metrics().replies_unmatched;
            peer.reply(Frame::new(header)).unwrap();
            while metrics().replies_unmatched == before {
                sleep(MS).await;
            }
            assert_eq!(metrics().connections_rdma, connections);
        }
        // SAFETY: nobody writes there any more.
        let found = unsafe { std::slice::from_raw_parts(target.start().as_ptr(), 1 << 20) };
        assert!(found.iter().all(|byte| *byte == 7));
    }
}

pub async fn a_peer_that_was_late_is_lent_no_more_for_a_while(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint);
    let caller = connected(&service).await;
    let wanted = Wanted::new(2 << 20).await;
    // Two are lent before the first of them is recalled.
    let late = [0, 1 << 20].map(|at| wanted.target(at, 1 << 20));
    let mut leases = Vec::new();
    for (at, target) in late.iter().enumerate() {
        let (loan, lease) = target.lend();
        let call = caller.call(read_to(1, 1 << 20, loan));
        let mut call = std::pin::pin!(call);
        while held.borrow().len() <= at {
            assert!(timeout(MS, call.as_mut()).await.is_err());
        }
        assert!(lease.is_lent_on());
        leases.push(lease);
    }
    for lease in leases {
        lease.recall();
        lease.over().await;
    }
    let connections = metrics().connections_rdma;
    for is_new in [false, true] {
        for round in 0..3 {
            let (loan, lease) = late[0].lend();
            let asked = caller.clone();
            let request = read_to(round, 1 << 20, loan);
            let call = ogee_runtime::spawn(async move { asked.call(request).await });
            while held.borrow().len() < if is_new { 1 } else { 3 } {
                sleep(MS).await;
            }
            assert!(!lease.is_lent_on());
            let (peer, request) = held.borrow_mut().pop().unwrap();
            let header = FrameHeader::reply(&request.header, Status::Ok);
            let before = metrics().bytes_in_place;
            let answer = Frame::with_payload(header, transferred(1 << 20));
            peer.reply(answer).unwrap();
            let reply = call.await.unwrap().unwrap();
            assert!(reply.payload[..] == bytes(1 << 20)[..]);
            assert!(!late[0].holds(&reply.payload));
            assert_eq!(metrics().bytes_in_place, before);
        }
        if is_new {
            break;
        }
        // The late answers end the connection, once.
        for (peer, request) in held.take() {
            let header = FrameHeader::reply(&request.header, Status::Ok);
            drop(peer.reply(Frame::with_payload(header, bytes(1 << 20))));
        }
        while metrics().connections_rdma == connections || caller.peer().is_none() {
            sleep(MS).await;
        }
    }
    // It was made anew once, which both sides count.
    assert_eq!(metrics().connections_rdma, connections + 2);
}

pub async fn an_answer_that_crosses_its_recall_is_to_be_asked_for_again(endpoint: Endpoint) {
    let wanted = Wanted::new(1 << 20).await;
    let target = wanted.target(0, 1 << 20);
    for is_void in [false, true] {
        let mut raw = Raw::new();
        let (listener, at) = raw.listen(&endpoint);
        // The peer says nothing of itself.
        let caller = Caller::with_options(at, client(), caller_options(mute()));
        let pair = raw.accept(&listener, good_offer()).await;
        raw.event(pair.key()).await;
        raw.send(&pair, Prefix::new(1), &whole(&hello_with_credits(8)), &[]);
        raw.wait_for_sent();
        let (loan, lease) = target.lend();
        let asked = caller.clone();
        let request = read_to(1, 1 << 20, loan);
        let call = ogee_runtime::spawn(async move { asked.call(request).await });
        let (head, asked_for) = raw.request(FrameKind::Read).await;
        let (loan, memory) = lent_in(&head);
        raw.write(&pair, memory).await;
        if is_void {
            lease.recall();
            lease.over().await;
        }
        let header = FrameHeader::reply(&asked_for, Status::Ok);
        let answer = Frame::with_payload(header, vec![7; 1 << 20]);
        let mut prefix = Prefix::new(1);
        (prefix.flags, prefix.loan, prefix.memory.len) = (WRITTEN, loan, 1 << 20);
        raw.send(&pair, prefix, &whole(&answer), &[]);
        if !is_void {
            // It has arrived, and nothing of this thread has looked yet.
            raw.wait_for_sent();
            lease.recall();
        }
        let reply = call.await.unwrap().unwrap();
        assert_eq!(
            (reply.header.status, reply.payload.len()),
            (Status::Retry, 0)
        );
        lease.over().await;
        // The connection goes on.
        let asked = caller.clone();
        let call = ogee_runtime::spawn(async move { asked.call(read(2, 512)).await });
        let (_, asked_for) = raw.request(FrameKind::Read).await;
        let header = FrameHeader::reply(&asked_for, Status::Ok);
        let answer = Frame::with_payload(header, bytes(512));
        raw.send(&pair, Prefix::new(1), &whole(&answer), &bytes(512));
        assert!(call.await.unwrap().unwrap().payload[..] == bytes(512)[..]);
    }
}

/// The memory that a request lends for its answer, by the head of its message.
fn lent_in(head: &[u8]) -> (u32, RemoteMemory) {
    assert_eq!(head[1], FOR_ANSWER);
    let of = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let memory = RemoteMemory {
        key: of(8),
        len: of(12),
        address: u64::from_le_bytes(head[16..24].try_into().unwrap()),
    };
    (of(4), memory)
}

pub async fn a_loan_goes_with_its_connection(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint);
    let caller = connected(&service).await;
    let wanted = Wanted::new(1 << 20).await;
    let (loan, lease) = wanted.target(0, 1 << 20).lend();
    given_up(&caller, &held, loan).await;
    drop(caller);
    lease.over().await;
    // And one that is lent to a peer that goes.
    held.borrow_mut().clear();
    let caller = connected(&service).await;
    let (loan, lease) = wanted.target(0, 1 << 20).lend();
    given_up(&caller, &held, loan).await;
    held.borrow_mut().clear();
    service.close().await;
    lease.over().await;
}

pub async fn an_answer_that_its_reader_wrote_over_is_asked_for_again(endpoint: Endpoint) {
    let (service, held) = holding(&endpoint);
    let caller = connected(&service).await;
    let wanted = Wanted::new(128 << 10).await;
    let target = wanted.target(0, 128 << 10);
    let connections = metrics().connections_rdma;
    let mut seen = [0, 0];
    for round in 0..100 {
        let (loan, lease) = target.lend();
        let asked = caller.clone();
        let request = read_to(round, 128 << 10, loan);
        let call = ogee_runtime::spawn(async move { asked.call(request).await });
        while held.borrow().is_empty() {
            ogee_runtime::yield_now().await;
        }
        let (peer, request) = held.borrow_mut().pop().unwrap();
        let header = FrameHeader::reply(&request.header, Status::Ok);
        let answer = Frame::with_payload(header, transferred(128 << 10));
        peer.reply(answer).unwrap();
        // As a guest does: at any time, so sometimes between the peer's write and the check.
        for _turn in 0..round % 20 {
            ogee_runtime::yield_now().await;
            let byte = target.start().as_ptr().wrapping_add(100_000);
            // SAFETY: within the memory, which nothing but the adapter and the test touches now.
            unsafe { byte.write_volatile(99) };
        }
        let reply = call.await.unwrap().unwrap();
        let is_whole = reply.header.status == Status::Ok;
        assert!(is_whole || reply.header.status == Status::Retry && reply.payload.is_empty());
        seen[usize::from(is_whole)] += 1;
        drop(reply);
        lease.over().await;
    }
    assert!(seen[1] > 0, "{seen:?}");
    println!("whole {}, to be asked for again {}", seen[1], seen[0]);
    assert_eq!(metrics().connections_rdma, connections, "it stands");
    let after = metrics();
    assert!(after.crc_errors >= seen[0]);
}
