//! Payloads that are sent from where somebody else has put them: what a device was read into, a user's memory.

use super::memory::read;
use crate::support::{MS, bytes, client, handler, serve, server, write};
use bytes::Bytes;
use ogee_proto::wire::{FrameHeader, Status};
use ogee_runtime::area::{self, Announced, announce};
use ogee_runtime::{Buffer, Payload, sleep};
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
    let caller = Caller::new(service.endpoint().clone(), client());
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
