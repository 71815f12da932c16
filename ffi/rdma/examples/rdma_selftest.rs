//! The crate's tests, on a real RDMA device: `rdma_selftest ADDRESS`, an address of a device of this host.
//!
//! `scripts/test lab` runs it in a guest. Each test prints `PASS name` or `FAIL name: why`; the exit code is 1
//! if one failed. Both ends of each connection are in this process, each waits for nothing but descriptors.

use ogee_rdma::{
    Access, AsyncEvent, Channel, Completion, ConnectParams, Domain, Done, Event, EventKind, Id,
    IdKey, Pair, PortState, Rail, RailLimits, RdmaError, Region, RemoteMemory, Shared, Slab,
    Source, Tell, Watch, WorkError, devices,
};
use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::{Duration, Instant};

type Outcome = Result<(), String>;

/// No step takes so long, also in an emulated guest.
const PATIENCE: Duration = Duration::from_secs(20);
const PIECE: usize = 64 << 10;
const PIECES: u32 = 32;
const ALL: usize = PIECES as usize;

type Test = fn(&str) -> Outcome;

const TESTS: &[(&str, Test)] = &[
    ("devices_and_ports_are_told", devices_are_told),
    ("data_of_both_ends_arrives_with_the_connection", connects),
    ("a_refusal_is_told", refuses),
    ("nobody_listens_there", nobody_listens),
    ("messages_of_all_lengths_arrive_in_order", sends),
    ("two_connections_share_receive_buffers", shares),
    ("a_head_and_a_payload_land_apart", splits),
    ("memory_is_read_and_written_by_its_key_alone", moves),
    (
        "what_others_look_at_is_sent_from_where_it_lies",
        shares_pieces,
    ),
    (
        "memory_of_others_is_read_and_written_and_let_go_of_last",
        moves_in_regions,
    ),
    ("a_void_key_reaches_nothing", voids),
    (
        "what_is_longer_than_the_buffer_breaks_the_connection",
        too_long,
    ),
    ("a_peer_without_buffers_is_told_of", no_receiver),
    ("everything_comes_back_when_a_pair_goes", comes_back),
    ("no_more_is_posted_than_was_promised", is_bounded),
    ("what_is_posted_too_early_comes_back", too_early),
    ("what_is_gathered_goes_at_once_and_comes_back", gathers),
    (
        "silent_ones_come_back_with_the_next_that_is_told_of",
        is_silent,
    ),
    ("a_failure_is_told_of_in_order", fails_in_order),
    (
        "what_was_gathered_or_is_silent_goes_with_its_pair",
        goes_with_its_pair,
    ),
    // Its addresses come back a moment after the port.
    ("everybody_hears_of_a_port_that_goes_down", tells_of_ports),
    // Last: the process has no device then.
    ("a_device_that_is_gone_is_let_go_of", lets_go),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), only) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: rdma_selftest ADDRESS [TEST]");
        return ExitCode::from(2);
    };
    let mut failed = false;
    for (name, test) in TESTS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let began = Instant::now();
        match test(&address) {
            Ok(()) => println!("PASS {name} ({:.1?})", began.elapsed()),
            Err(why) => {
                failed = true;
                println!("FAIL {name}: {why}");
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

/// Both ends, and what they share.
struct World {
    channel: Channel,
    domain: Domain,
    rail: Rail,
    slab: Slab,
    events: VecDeque<Event>,
    completions: VecDeque<Completion>,
}

fn told(error: RdmaError) -> String {
    error.to_string()
}

impl World {
    fn new() -> Result<Self, String> {
        let domain = Domain::open(None).map_err(told)?;
        let limits = RailLimits {
            sends: 64,
            receives: 32,
        };
        Ok(Self {
            channel: Channel::new().map_err(told)?,
            rail: Rail::new(&domain, limits).map_err(told)?,
            slab: Slab::register(&domain, PIECE, PIECES).map_err(told)?,
            domain,
            events: VecDeque::new(),
            completions: VecDeque::new(),
        })
    }

    /// Waits for a descriptor, then takes what there is.
    fn turn(&mut self) -> Outcome {
        self.rail.arm().map_err(told)?;
        let mut found = Vec::new();
        self.rail.poll(&mut found, 64).map_err(told)?;
        if found.is_empty() {
            wait(&[
                self.rail.as_fd().as_raw_fd(),
                self.channel.as_fd().as_raw_fd(),
            ]);
            self.rail.clear();
            self.rail.poll(&mut found, 64).map_err(told)?;
        }
        self.completions.extend(found);
        while let Some(event) = self.channel.next().map_err(told)? {
            self.events.push_back(event);
        }
        Ok(())
    }

    fn event(&mut self, id: IdKey) -> Result<Event, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.events.iter().position(|event| event.id == id) {
                return self.events.remove(at).ok_or_else(|| "gone".into());
            }
            if Instant::now() > end {
                return Err("no event came".into());
            }
            self.turn()?;
        }
    }

    fn completion(&mut self, is_it: impl Fn(&Completion) -> bool) -> Result<Completion, String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.completions.iter().position(&is_it) {
                return self.completions.remove(at).ok_or_else(|| "gone".into());
            }
            if Instant::now() > end {
                return Err(format!("no such completion among {:?}", self.completions));
            }
            self.turn()?;
        }
    }

    /// The end of the work request of `pair` with that token.
    fn sent(&mut self, pair: &Pair, token: u64) -> Result<Completion, String> {
        let number = pair.number();
        self.completion(|it| it.pair == number && it.token == token && !is_receive(it))
    }

    /// The next message for `pair`.
    fn received(&mut self, pair: &Pair) -> Result<(Vec<u8>, Completion), String> {
        let number = pair.number();
        let completion = self.completion(|it| it.pair == number && is_receive(it))?;
        completion.outcome.map_err(|error| error.to_string())?;
        let Done::Received { head, len, .. } = &completion.done else {
            return Err("not a message".into());
        };
        let bytes = head[..(*len).min(head.len())].to_vec();
        Ok((bytes, completion))
    }

    fn offer(&self, count: usize) -> Outcome {
        for _ in 0..count {
            let piece = self.slab.take().ok_or("no piece is left")?;
            let offered = self.rail.receive(piece, PIECE, None);
            offered.map_err(|failed| told(failed.error))?;
        }
        Ok(())
    }

    fn listen(&self, address: &str) -> Result<(Id, SocketAddr), String> {
        let listener = Id::new(&self.channel).map_err(told)?;
        let mut at: SocketAddr = format!("{address}:0").parse().map_err(|_| "no address")?;
        let port = listener.listen(at, 16).map_err(told)?;
        at.set_port(port);
        Ok((listener, at))
    }

    /// The active end, up to its request.
    fn ask(&mut self, at: SocketAddr, params: &ConnectParams) -> Result<Pair, String> {
        let id = Id::new(&self.channel).map_err(told)?;
        id.resolve(at, Duration::from_secs(2)).map_err(told)?;
        let event = self.event(id.key())?;
        expect(matches!(event.kind, EventKind::AddressResolved), &event)?;
        id.resolve_route(Duration::from_secs(2)).map_err(told)?;
        let event = self.event(id.key())?;
        expect(matches!(event.kind, EventKind::RouteResolved), &event)?;
        let pair = Pair::new(&self.rail, id, 16).map_err(|failed| told(failed.error))?;
        pair.connect(params).map_err(told)?;
        Ok(pair)
    }

    /// A connection: who asked, and who accepted.
    fn connect(&mut self, address: &str) -> Result<(Pair, Pair, Id), String> {
        let (listener, at) = self.listen(address)?;
        let active = self.ask(at, &ConnectParams::default())?;
        let request = self.event(listener.key())?;
        let EventKind::Request(id) = request.kind else {
            return Err(format!("{request:?}"));
        };
        let passive = Pair::new(&self.rail, id, 16).map_err(|failed| told(failed.error))?;
        passive.accept(&ConnectParams::default()).map_err(told)?;
        for pair in [&active, &passive] {
            let event = self.event(pair.key())?;
            expect(matches!(event.kind, EventKind::Established), &event)?;
        }
        Ok((active, passive, listener))
    }

    fn send(&self, pair: &Pair, bytes: &[u8], token: u64) -> Outcome {
        let mut piece = self.slab.take().ok_or("no piece is left")?;
        piece[..bytes.len()].copy_from_slice(bytes);
        let sent = pair.send(piece, bytes.len(), token);
        sent.map_err(|failed| told(failed.error))
    }
}

fn is_receive(completion: &Completion) -> bool {
    matches!(completion.done, Done::Received { .. })
}

fn expect(is_so: bool, what: &dyn std::fmt::Debug) -> Outcome {
    is_so.then_some(()).ok_or_else(|| format!("{what:?}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    (found == expected)
        .then_some(())
        .ok_or_else(|| format!("{found:?}, not {expected:?}"))
}

fn wait(fds: &[i32]) {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: *fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let count = libc::nfds_t::try_from(polled.len()).expect("a few");
    // SAFETY: so many entries, borrowed for the call.
    unsafe { libc::poll(polled.as_mut_ptr(), count, 100) };
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let byte = |at: usize| (at * 7 + at / 251 + seed).to_le_bytes()[0];
    (0..len).map(byte).collect()
}

fn devices_are_told(address: &str) -> Outcome {
    let devices = devices().map_err(told)?;
    println!("{devices:?}");
    let active = devices.iter().flat_map(|device| &device.ports);
    let active: Vec<_> = active
        .filter(|port| port.state == PortState::Active)
        .collect();
    expect(!active.is_empty(), &devices)?;
    let known = active.iter().flat_map(|port| &port.gids);
    let mut mapped = known.filter_map(|gid| gid.address.to_ipv4_mapped());
    expect(mapped.any(|gid| gid.to_string() == address), &devices)?;
    let error = Domain::open(Some("no_such_device"))
        .err()
        .ok_or("there is one")?;
    expect(error.to_string().contains(&devices[0].name), &error)
}

fn connects(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (listener, at) = world.listen(address)?;
    let params = |data: &[u8]| ConnectParams {
        data: data.to_vec(),
        ..ConnectParams::default()
    };
    let active = world.ask(at, &params(b"who asks"))?;
    let request = world.event(listener.key())?;
    expect(request.data.starts_with(b"who asks"), &request)?;
    let EventKind::Request(id) = request.kind else {
        return Err("no request".into());
    };
    let passive = Pair::new(&world.rail, id, 16).map_err(|failed| told(failed.error))?;
    passive.accept(&params(b"who answers")).map_err(told)?;
    let event = world.event(active.key())?;
    expect(matches!(event.kind, EventKind::Established), &event)?;
    expect(event.data.starts_with(b"who answers"), &event)?;
    let event = world.event(passive.key())?;
    expect(matches!(event.kind, EventKind::Established), &event)?;
    active.disconnect().map_err(told)?;
    let event = world.event(passive.key())?;
    expect(matches!(event.kind, EventKind::Disconnected), &event)?;
    passive.disconnect().map_err(told)?;
    let event = world.event(active.key())?;
    expect(matches!(event.kind, EventKind::Disconnected), &event)
}

fn refuses(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (listener, at) = world.listen(address)?;
    let active = world.ask(at, &ConnectParams::default())?;
    let EventKind::Request(id) = world.event(listener.key())?.kind else {
        return Err("no request".into());
    };
    id.reject(b"no").map_err(told)?;
    let event = world.event(active.key())?;
    expect(matches!(event.kind, EventKind::Rejected), &event)?;
    expect(event.data.starts_with(b"no"), &event)
}

fn nobody_listens(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (listener, at) = world.listen(address)?;
    drop(listener);
    let active = world.ask(at, &ConnectParams::default())?;
    let event = world.event(active.key())?;
    let is_told = matches!(event.kind, EventKind::Rejected | EventKind::Unreachable);
    expect(is_told, &event)?;
    let elsewhere = Id::new(&world.channel).map_err(told)?;
    let at = "192.0.2.1:1".parse().map_err(|_| "no address")?;
    // Told at once, or by an event.
    if elsewhere.resolve(at, Duration::from_millis(500)).is_ok() {
        let event = world.event(elsewhere.key())?;
        expect(matches!(event.kind, EventKind::AddressError), &event)?;
    }
    let error = elsewhere.listen("192.0.2.1:1".parse().map_err(|_| "no address")?, 1);
    expect(error.is_err(), &error)
}

fn sends(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    for (from, to) in [(&active, &passive), (&passive, &active)] {
        for (round, lens) in [[1, 64, 511], [4096, 4097, PIECE]].into_iter().enumerate() {
            world.offer(lens.len())?;
            for (at, len) in lens.into_iter().enumerate() {
                world.send(from, &pattern(len, round + at), (10 * round + at) as u64)?;
            }
            for (at, len) in lens.into_iter().enumerate() {
                let (bytes, _) = world.received(to)?;
                equal(&bytes, &pattern(len, round + at))?;
                let sent = world.sent(from, (10 * round + at) as u64)?;
                equal(&sent.outcome, &Ok(()))?;
            }
        }
    }
    world.offer(1)?;
    active.send_inline(b"a few bytes", 99).map_err(told)?;
    equal(&world.received(&passive)?.0, &b"a few bytes".to_vec())?;
    world.sent(&active, 99)?;
    let long = vec![0; active.inline_max() + 1];
    expect(
        active.send_inline(&long, 1).is_err(),
        &"too long for inline",
    )
}

fn shares(address: &str) -> Outcome {
    let mut world = World::new()?;
    let first = world.connect(address)?;
    let second = world.connect(address)?;
    world.offer(4)?;
    for at in 0..2 {
        world.send(&first.0, &pattern(100, at), 1)?;
        world.send(&second.0, &pattern(200, at), 2)?;
    }
    for at in 0..2 {
        equal(&world.received(&first.1)?.0, &pattern(100, at))?;
        equal(&world.received(&second.1)?.0, &pattern(200, at))?;
    }
    equal(&world.rail.receives(), &0)
}

fn splits(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    let take = || world.slab.take().ok_or("no piece is left");
    let offered = world.rail.receive(take()?, 128, Some(take()?));
    offered.map_err(|failed| told(failed.error))?;
    let (mut head, mut payload) = (take()?, take()?);
    head[..128].copy_from_slice(&pattern(128, 1));
    payload[..8192].copy_from_slice(&pattern(8192, 2));
    let sent = active.send_both(head, 128, Some((payload.into(), 8192)), 5);
    sent.map_err(|failed| told(failed.error))?;
    let (_, completion) = world.received(&passive)?;
    let Done::Received { head, rest, len } = completion.done else {
        return Err("not a message".into());
    };
    equal(&len, &(128 + 8192))?;
    equal(&head[..128].to_vec(), &pattern(128, 1))?;
    let rest = rest.ok_or("there is no payload")?;
    equal(&(rest.as_ptr().addr() % 4096), &0)?;
    equal(&rest[..8192].to_vec(), &pattern(8192, 2))
}

fn moves(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (client, server, _listener) = world.connect(address)?;
    for round in 0..3 {
        // The client lends, the server moves.
        let mut source = world.slab.take().ok_or("no piece is left")?;
        source[..8192].copy_from_slice(&pattern(8192, round));
        let target = world.slab.take().ok_or("no piece is left")?;
        let source = client.lend(source, 8192, Access::Read, 1);
        let source = source.map_err(|failed| told(failed.error))?;
        let target = client.lend(target, 8192, Access::Write, 2);
        let target = target.map_err(|failed| told(failed.error))?;
        for token in [1, 2] {
            equal(&world.sent(&client, token)?.outcome, &Ok(()))?;
        }
        let piece = world.slab.take().ok_or("no piece is left")?;
        let read = server.read(piece, source.remote(), 3);
        read.map_err(|failed| told(failed.error))?;
        let read = world.sent(&server, 3)?;
        equal(&read.outcome, &Ok(()))?;
        let Done::Read(piece) = read.done else {
            return Err("not a read".into());
        };
        equal(&piece[..8192].to_vec(), &pattern(8192, round))?;
        let write = server.write(piece, target.remote(), 4);
        write.map_err(|failed| told(failed.error))?;
        equal(&world.sent(&server, 4)?.outcome, &Ok(()))?;
        for (lent, token) in [(source, 5), (target, 6)] {
            client
                .reclaim(lent, token)
                .map_err(|failed| told(failed.error))?;
            let reclaimed = world.sent(&client, token)?;
            equal(&reclaimed.outcome, &Ok(()))?;
            let Done::Reclaimed(Source::Own(piece)) = reclaimed.done else {
                return Err("not reclaimed".into());
            };
            equal(&piece[..8192].to_vec(), &pattern(8192, round))?;
        }
    }
    equal(&world.slab.free(), &ALL)
}

/// What somebody looks at is sent, lent and written from where it lies, by two at a time.
fn shares_pieces(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (client, server, _listener) = world.connect(address)?;
    let mut piece = world.slab.take().ok_or("no piece is left")?;
    piece[..PIECE].copy_from_slice(&pattern(PIECE, 9));
    let shared = Shared::new(piece);
    let part = shared.slice(4096..12288);
    equal(&client.may_send(&part), &true)?;
    // Sent, behind a head.
    let take = |world: &World| world.slab.take().ok_or("no piece is left");
    let offered = world.rail.receive(take(&world)?, 64, Some(take(&world)?));
    offered.map_err(|failed| told(failed.error))?;
    let lent = client.lend(part.clone(), 8192, Access::Read, 1);
    let lent = lent.map_err(|failed| told(failed.error))?;
    let head = take(&world)?;
    let sent = client.send_both(head, 64, Some((part.clone().into(), 8192)), 2);
    sent.map_err(|failed| told(failed.error))?;
    let (_, completion) = world.received(&server)?;
    let Done::Received { head, rest, .. } = completion.done else {
        return Err("not a message".into());
    };
    let rest = rest.ok_or("there is no payload")?;
    equal(
        &rest[..8192].to_vec(),
        &pattern(PIECE, 9)[4096..12288].to_vec(),
    )?;
    for token in [1, 2] {
        equal(&world.sent(&client, token)?.outcome, &Ok(()))?;
    }
    // Read by the peer, while it is looked at.
    let read = server.read(take(&world)?, lent.remote(), 3);
    read.map_err(|failed| told(failed.error))?;
    let Done::Read(piece) = world.sent(&server, 3)?.done else {
        return Err("not a read".into());
    };
    equal(&piece[..8192].to_vec(), &part.to_vec())?;
    let back = client.reclaim(lent, 4);
    back.map_err(|failed| told(failed.error))?;
    equal(&world.sent(&client, 4)?.outcome, &Ok(()))?;
    drop((piece, head, rest));
    world.completions.clear();
    // The piece goes back behind the last who looks.
    equal(&world.slab.free(), &(ALL - 1))?;
    drop(shared);
    equal(&world.slab.free(), &(ALL - 1))?;
    drop(part);
    equal(&world.slab.free(), &ALL)
}

/// Two who watch a device both hear that its port went down.
/// Memory that somebody else has.
struct Memory {
    bytes: UnsafeCell<Vec<u8>>,
    is_over: Rc<Cell<bool>>,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.is_over.set(true);
    }
}

/// Its own memory is lent for both, sent, and let go of only when neither hardware nor the peer may touch it.
fn moves_in_regions(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (client, server, _listener) = world.connect(address)?;
    let is_over = Rc::new(Cell::new(false));
    let memory = Rc::new(Memory {
        bytes: UnsafeCell::new(pattern(3 * PIECE, 5)),
        is_over: Rc::clone(&is_over),
    });
    // SAFETY: nobody else looks at the vector now, and nobody changes it, but what is in it.
    let bytes = unsafe { &mut *memory.bytes.get() };
    let start = NonNull::from_mut(bytes.as_mut_slice()).cast::<u8>();
    let owner = Box::new(Rc::clone(&memory));
    // SAFETY: the owner has it.
    let region = unsafe { Region::register(&world.domain, start, 3 * PIECE, owner) };
    let region = region.map_err(told)?;
    let elsewhere = pattern(8192, 1);
    expect(
        region.part(&elsewhere, Box::new(())).is_none(),
        &"elsewhere",
    )?;
    let kept = Rc::new(());
    let part = |at: usize, len: usize| {
        // SAFETY: within it.
        let first = unsafe { start.add(at) };
        // SAFETY: within it, and nobody writes to these.
        let bytes = unsafe { std::slice::from_raw_parts(first.as_ptr(), len) };
        region.part(bytes, Box::new(Rc::clone(&kept)))
    };
    expect(part(3 * PIECE - 8192, 8192).is_some(), &"the end of it")?;
    let source = part(100, 8192).ok_or("it lies there")?;
    // SAFETY: within the memory.
    let place = unsafe { start.add(PIECE) };
    // SAFETY: nobody else touches these until it has come back.
    let target = unsafe { region.target(place, 8192, Box::new(Rc::clone(&kept))) };
    let target = target.ok_or("it lies there")?;
    // The owner, and whoever registered it, have gone: the parts are left.
    drop((region, memory));
    let source = client.lend(source, 8192, Access::Read, 1);
    let source = source.map_err(|failed| told(failed.error))?;
    let target = client.lend(target, 8192, Access::Write, 2);
    let target = target.map_err(|failed| told(failed.error))?;
    for token in [1, 2] {
        equal(&world.sent(&client, token)?.outcome, &Ok(()))?;
    }
    let take = |world: &World| world.slab.take().ok_or("no piece is left");
    let read = server.read(take(&world)?, source.remote(), 3);
    read.map_err(|failed| told(failed.error))?;
    let Done::Read(mut piece) = world.sent(&server, 3)?.done else {
        return Err("not a read".into());
    };
    equal(
        &piece[..8192].to_vec(),
        &pattern(3 * PIECE, 5)[100..8292].to_vec(),
    )?;
    piece[..8192].copy_from_slice(&pattern(8192, 77));
    let write = server.write(piece, target.remote(), 4);
    write.map_err(|failed| told(failed.error))?;
    equal(&world.sent(&server, 4)?.outcome, &Ok(()))?;
    client
        .reclaim(source, 5)
        .map_err(|failed| told(failed.error))?;
    drop(world.sent(&client, 5)?);
    equal(&(Rc::strong_count(&kept), is_over.get()), &(2, false))?;
    client
        .reclaim(target, 6)
        .map_err(|failed| told(failed.error))?;
    let Done::Reclaimed(Source::Part(written)) = world.sent(&client, 6)?.done else {
        return Err("not reclaimed".into());
    };
    equal(
        &written.written().map(<[u8]>::to_vec),
        &Some(pattern(8192, 77)),
    )?;
    equal(&is_over.get(), &false)?;
    drop(written);
    equal(&(Rc::strong_count(&kept), is_over.get()), &(1, true))?;
    world.completions.clear();
    equal(&world.slab.free(), &ALL)
}

fn tells_of_ports(_address: &str) -> Outcome {
    let domains = [Domain::open(None), Domain::open(None)];
    let [one, two] = domains.map(|domain| domain.map_err(told));
    let (one, two) = (one?, two?);
    let watches = [&one, &two].map(|domain| Watch::new(domain).map_err(told));
    let [one, two] = watches;
    let (one, two) = (one?, two?);
    let link = |state| {
        let mut set = std::process::Command::new("ip");
        let set = set.args(["link", "set", "dummy0", state]);
        set.status().map_err(|error| error.to_string())
    };
    link("down")?;
    let heard = |watch: &Watch| -> Outcome {
        let [events, told_by_others] = watch.descriptors();
        for _ in 0..20 {
            while let Some(event) = watch.next().map_err(told)? {
                if event.what == AsyncEvent::PortDown {
                    return equal(&event.port(), &1);
                }
            }
            wait(&[events.as_raw_fd(), told_by_others.as_raw_fd()]);
        }
        Err("nothing was told of the port".into())
    };
    let outcome = heard(&one).and_then(|()| heard(&two));
    link("up")?;
    outcome
}

fn voids(address: &str) -> Outcome {
    let mut world = World::new()?;
    for attempt in 0..4 {
        let (client, server, _listener) = world.connect(address)?;
        let piece = world.slab.take().ok_or("no piece is left")?;
        let lent = client.lend(piece, 4096, Access::Read, 1);
        let lent = lent.map_err(|failed| told(failed.error))?;
        equal(&world.sent(&client, 1)?.outcome, &Ok(()))?;
        let remote = lent.remote();
        let mut kept = Some(lent);
        let mut is_write = false;
        let remote = match attempt {
            // Another key.
            0 => RemoteMemory {
                key: remote.key ^ 0x5500,
                ..remote
            },
            // Behind the slab: rxe does not check the bounds of a window (Linux 6.1).
            1 => RemoteMemory {
                address: remote.address + PIECE as u64 * u64::from(PIECES),
                ..remote
            },
            // To be read only.
            2 => {
                is_write = true;
                remote
            }
            // Taken back.
            _ => {
                let lent = kept.take().ok_or("lent once")?;
                client
                    .reclaim(lent, 2)
                    .map_err(|failed| told(failed.error))?;
                equal(&world.sent(&client, 2)?.outcome, &Ok(()))?;
                remote
            }
        };
        let piece = world.slab.take().ok_or("no piece is left")?;
        let posted = match is_write {
            true => server.write(piece, remote, 3).map_err(|it| it.error),
            false => server.read(piece, remote, 3).map_err(|it| it.error),
        };
        posted.map_err(told)?;
        let outcome = world.sent(&server, 3)?.outcome;
        equal(&outcome, &Err(WorkError::RemoteAccess))
            .map_err(|why| format!("attempt {attempt}: {why}"))?;
        // What is behind it is flushed.
        world.send(&server, b"late", 4)?;
        equal(&world.sent(&server, 4)?.outcome, &Err(WorkError::Flushed))?;
    }
    equal(&world.slab.free(), &ALL)
}

fn too_long(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    let piece = world.slab.take().ok_or("no piece is left")?;
    let offered = world.rail.receive(piece, 4096, None);
    offered.map_err(|failed| told(failed.error))?;
    world.send(&active, &pattern(4097, 0), 1)?;
    let outcome = world.sent(&active, 1)?.outcome;
    expect(outcome.is_err(), &outcome)?;
    let number = passive.number();
    // `TooLong` by the book; rxe has another word for it.
    let received = world.completion(|it| it.pair == number && is_receive(it))?;
    expect(received.outcome.is_err(), &received.outcome)
}

fn no_receiver(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, _passive, _listener) = world.connect(address)?;
    world.send(&active, b"for nobody", 1)?;
    equal(
        &world.sent(&active, 1)?.outcome,
        &Err(WorkError::NoReceiver),
    )
}

fn comes_back(address: &str) -> Outcome {
    let mut world = World::new()?;
    {
        let (active, passive, _listener) = world.connect(address)?;
        for token in 0..8 {
            world.send(&active, b"for nobody", token)?;
        }
        let piece = world.slab.take().ok_or("no piece is left")?;
        let lent = passive.lend(piece, 4096, Access::Write, 20);
        let lent = lent.map_err(|failed| told(failed.error))?;
        // Its memory stays away for as long as the peer may reach it.
        let before = world.slab.free();
        drop(lent);
        equal(&world.slab.free(), &before)?;
        drop(active);
        equal(&world.slab.free(), &(ALL - 1))?;
        drop(passive);
    }
    world.completions.clear();
    equal(&world.slab.free(), &ALL)?;
    equal(&world.rail.under_way(), &0)?;
    world.offer(4)?;
    let World {
        rail, slab, domain, ..
    } = world;
    drop(rail);
    equal(&slab.free(), &ALL)?;
    let watch = Watch::new(&domain).map_err(told)?;
    equal(&watch.next().map_err(told)?, &None)
}

fn is_bounded(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, _passive, _listener) = world.connect(address)?;
    // Nobody takes them, so none completes before its retries are over.
    let mut posted = 0;
    while active.room() > 0 {
        world.send(&active, b"for nobody", posted)?;
        posted += 1;
    }
    equal(&posted, &16)?;
    let free = world.slab.free();
    let piece = world.slab.take().ok_or("no piece is left")?;
    let Err(failed) = active.send(piece, 1, 17) else {
        return Err("it was taken".into());
    };
    expect(
        matches!(failed.error, RdmaError::Full { .. }),
        &failed.error,
    )?;
    drop(failed);
    equal(&world.slab.free(), &free)?;
    // Four pairs of 16 are all that the rail has.
    let _more = world.connect(address)?;
    let (listener, at) = world.listen(address)?;
    let refused = world.ask(at, &ConnectParams::default()).err();
    drop(listener);
    let refused = refused.ok_or("a fifth pair was made")?;
    expect(refused.contains("takes 64"), &refused)
}

/// Some drivers queue it, and say that it failed; it must not come back twice, nor be lost.
fn too_early(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (listener, at) = world.listen(address)?;
    let id = Id::new(&world.channel).map_err(told)?;
    id.resolve(at, Duration::from_secs(2)).map_err(told)?;
    world.event(id.key())?;
    id.resolve_route(Duration::from_secs(2)).map_err(told)?;
    world.event(id.key())?;
    let pair = Pair::new(&world.rail, id, 16).map_err(|failed| told(failed.error))?;
    let refused = world.send(&pair, b"early", 1);
    let with_hardware = ALL - world.slab.free();
    equal(&with_hardware, &usize::from(refused.is_ok()))?;
    equal(&world.rail.under_way(), &with_hardware)?;
    drop((pair, listener));
    equal(&world.slab.free(), &ALL)?;
    equal(&world.rail.under_way(), &0)
}

/// Files of the device that the process has open.
fn opened_files() -> Result<usize, String> {
    let files = std::fs::read_dir("/proc/self/fd").map_err(|error| error.to_string())?;
    let target = |file: std::fs::DirEntry| std::fs::read_link(file.path()).ok();
    let targets = files.filter_map(|file| target(file.ok()?));
    let of_device = |target: &std::path::PathBuf| {
        let target = target.to_string_lossy();
        target.contains("uverbs") || target.contains("infinibandevent")
    };
    Ok(targets.filter(of_device).count())
}

/// Everybody who has opened it hears of it, and behind the last of them the kernel's side is closed.
fn lets_go(address: &str) -> Outcome {
    let mut world = World::new()?;
    let pairs = world.connect(address)?;
    let other = Domain::open(None).map_err(told)?;
    let watch = Watch::new(&other).map_err(told)?;
    expect(opened_files()? > 0, &"a device is open")?;
    equal(&(world.domain.is_gone(), other.is_gone()), &(false, false))?;
    world.domain.gone();
    let heard = watch.next().map_err(told)?.map(|event| event.what);
    equal(&heard, &Some(AsyncEvent::DeviceRemoved))?;
    equal(&(world.domain.is_gone(), other.is_gone()), &(true, true))?;
    drop((pairs, world));
    expect(opened_files()? > 0, &"another domain is there")?;
    drop((watch, other));
    equal(&opened_files()?, &0)
}

/// How many each of the tests below has in a pair, by [`World::ask`].
const DEPTH: u64 = 16;

impl World {
    /// The next end of a work request of `pair`, whichever it is.
    fn next_sent(&mut self, pair: &Pair) -> Result<Completion, String> {
        let number = pair.number();
        self.completion(|it| it.pair == number && !is_receive(it))
    }

    /// All messages for `pair` are those that [`gather`](Self::gather) has sent.
    fn receive_all(&mut self, pair: &Pair, tokens: std::ops::Range<u64>) -> Outcome {
        for token in tokens {
            equal(&self.received(pair)?.0, &message(token))?;
        }
        Ok(())
    }

    fn gather(&self, pair: &Pair, tokens: std::ops::Range<u64>) -> Outcome {
        for token in tokens {
            self.send(pair, &message(token), token)?;
        }
        Ok(())
    }
}

fn message(token: u64) -> Vec<u8> {
    let seed = usize::try_from(token).expect("a small number");
    pattern(100 + seed, seed)
}

fn gathers(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    world.offer(16)?;
    let (free, told_before) = (world.slab.free(), world.rail.told());
    active.hold();
    world.gather(&active, 0..DEPTH - 1)?;
    active.send_inline(b"the last", DEPTH - 1).map_err(told)?;
    // It is out of reach, takes room, and has not gone.
    equal(&world.slab.free(), &(free - 15))?;
    equal(&active.room(), &0)?;
    let piece = world.slab.take().ok_or("no piece is left")?;
    let refused = active.send(piece, 1, 99).err().ok_or("it was taken")?;
    expect(
        matches!(refused.error, RdmaError::Full { .. }),
        &refused.error,
    )?;
    drop(refused);
    world.turn()?;
    expect(world.completions.is_empty(), &world.completions)?;
    equal(&active.post(Tell::Last).map_err(told)?, &1)?;
    world.receive_all(&passive, 0..DEPTH - 1)?;
    equal(&world.received(&passive)?.0, &b"the last".to_vec())?;
    for token in 0..DEPTH {
        let sent = world.next_sent(&active)?;
        equal(&(sent.token, sent.outcome), &(token, Ok(())))?;
    }
    // 16 came, and of 16 that went every fifth was told of, and the last.
    equal(&(world.rail.told() - told_before), &(16 + 4))?;
    world.completions.clear();
    equal(&world.slab.free(), &ALL)?;
    equal(&(active.room(), active.silent()), &(16, 0))
}

fn is_silent(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    world.offer(6)?;
    // A quarter of the queue at most.
    for token in 0..4 {
        active.hold();
        world.gather(&active, token..token + 1)?;
        active.post(Tell::Later).map_err(told)?;
    }
    world.receive_all(&passive, 0..4)?;
    world.turn()?;
    // All have arrived, and nobody knows of it: their memory stays away.
    expect(world.completions.is_empty(), &world.completions)?;
    equal(&(active.silent(), active.room()), &(4, 12))?;
    equal(
        &(world.slab.free(), world.rail.under_way()),
        &(ALL - 2 - 4, 4),
    )?;
    active.hold();
    world.gather(&active, 4..5)?;
    active.post(Tell::Later).map_err(told)?;
    for token in 0..5 {
        let sent = world.next_sent(&active)?;
        equal(&(sent.token, sent.outcome), &(token, Ok(())))?;
    }
    world.receive_all(&passive, 4..5)?;
    equal(&(active.silent(), world.rail.under_way()), &(0, 0))?;
    world.completions.clear();
    equal(&world.slab.free(), &(ALL - 1))
}

fn fails_in_order(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    world.offer(3)?;
    let nowhere = RemoteMemory {
        address: 4096,
        key: 0x0bad_0000,
        len: 64,
    };
    active.hold();
    world.gather(&active, 0..3)?;
    let piece = world.slab.take().ok_or("no piece is left")?;
    let read = active.read(piece, nowhere, 3);
    read.map_err(|failed| told(failed.error))?;
    world.gather(&active, 4..8)?;
    active.post(Tell::Last).map_err(told)?;
    world.receive_all(&passive, 0..3)?;
    for token in 0..8 {
        let sent = world.next_sent(&active)?;
        let outcome = match token {
            0..3 => Ok(()),
            3 => Err(WorkError::RemoteAccess),
            _ => Err(WorkError::Flushed),
        };
        equal(&(sent.token, sent.outcome), &(token, outcome))?;
    }
    world.completions.clear();
    drop((active, passive));
    equal(&world.slab.free(), &ALL)?;
    equal(&world.rail.under_way(), &0)
}

fn goes_with_its_pair(address: &str) -> Outcome {
    let mut world = World::new()?;
    let (active, passive, _listener) = world.connect(address)?;
    world.offer(2)?;
    active.hold();
    world.gather(&active, 0..2)?;
    active.post(Tell::Later).map_err(told)?;
    world.receive_all(&passive, 0..2)?;
    active.hold();
    world.gather(&active, 2..4)?;
    let piece = world.slab.take().ok_or("no piece is left")?;
    let lent = active.lend(piece, 4096, Access::Read, 4);
    let lent = lent.map_err(|failed| told(failed.error))?;
    active
        .reclaim(lent, 5)
        .map_err(|failed| told(failed.error))?;
    equal(&world.slab.free(), &(ALL - 5))?;
    equal(&(active.room(), world.rail.under_way()), &(10, 6))?;
    drop(active);
    world.completions.clear();
    equal(&world.slab.free(), &ALL)?;
    equal(&world.rail.under_way(), &0)
}
