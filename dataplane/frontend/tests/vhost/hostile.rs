//! Guests that break the rules lose their ring, VMs that break the protocol their connection; nobody else notices.

use crate::driver::{EVENT_INDEX, FLUSH, IN, INDIRECT, Machine, NEXT, OUT, WRITE, connect};
use crate::served::{Home, Remote, options};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

const SOON: Duration = Duration::from_millis(100);
const LATE: Duration = Duration::from_secs(20);

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + LATE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a guest does wrong with queue 0.
type Misdeed = fn(&mut Machine);

fn raw(machine: &mut Machine, at: u64, len: u32, flags: u16, next: u16) {
    let table = machine.queues[0].table();
    machine.descriptor(table, 0, at, len, flags, next);
    machine.offer(0, 0);
}

const MISDEEDS: &[(&str, Misdeed)] = &[
    ("a loop", |machine| raw(machine, 0x10_0000, 16, NEXT, 0)),
    ("a head outside", |machine| machine.offer(0, 9999)),
    ("an index that runs away", |machine| {
        let at = machine.queues[0].available_at() + 2;
        machine.store(at, 5000);
    }),
    ("a descriptor outside", |machine| {
        raw(machine, u64::MAX - 7, 64, 0, 0);
    }),
    ("an empty descriptor", |machine| {
        raw(machine, 0x10_0000, 0, 0, 0);
    }),
    ("no status", |machine| raw(machine, 0x10_0000, 16, 0, 0)),
    ("a table of nothing", |machine| {
        raw(machine, 0x10_0000, 0, INDIRECT, 0);
    }),
    ("a table that is too long", |machine| {
        raw(machine, 0x10_0000, !15, INDIRECT, 0);
    }),
    ("a table within a table", |machine| {
        machine.descriptor(0x10_0000, 0, 0x11_0000, 16, INDIRECT, 0);
        raw(machine, 0x10_0000, 16, INDIRECT, 0);
    }),
    ("a chain that leaves its table", |machine| {
        raw(machine, 0x10_0000, 16, NEXT, 60000);
    }),
    ("what it writes before what it reads", |machine| {
        let table = machine.queues[0].table();
        machine.descriptor(table, 1, 0x10_0000, 16, 0, 0);
        raw(machine, 0x10_0000, 1, NEXT | WRITE, 1);
    }),
];

#[test]
fn a_ring_that_is_abused_stops_and_a_reset_brings_it_back() {
    for features in [0, EVENT_INDEX] {
        for (what, misdeed) in MISDEEDS {
            let home = Home::new();
            let remote = Remote::new(&home.socket(), options(2));
            let mut machine = Machine::new(2, 16);
            let frontend = machine.connect(&home.socket(), features);
            misdeed(&mut machine);
            machine.kick(0);
            until(what, || remote.look().served.broken_rings == 1);
            // It stands still, the other one does not.
            let before = machine.load(machine.queues[0].used() + 2);
            machine.kick(0);
            assert_eq!(machine.call(1, OUT, 0, &[7; 4096], 0).status, 0, "{what}");
            assert_eq!(machine.load(machine.queues[0].used() + 2), before, "{what}");
            drop(frontend);
            // A new start with clean rings.
            let mut machine = Machine::new(2, 16);
            let _frontend = machine.connect(&home.socket(), features);
            assert_eq!(machine.call(0, IN, 0, &[], 4096).data, [7; 4096], "{what}");
            let (seen, _) = remote.stop();
            assert_eq!(seen.served.broken_rings, 1, "{what}");
        }
    }
}

#[test]
fn a_head_that_is_under_way_is_not_taken_again() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    remote.tell(crate::served::Order::Delay(Duration::from_secs(2)));
    let mut machine = Machine::new(1, 16);
    let _frontend = machine.connect(&home.socket(), 0);
    let head = machine.ask(0, OUT, 0, &[1; 4096], 0);
    machine.offer(0, head);
    machine.kick(0);
    until("the ring stops", || remote.look().served.broken_rings == 1);
}

/// A second server of the same process is not disturbed by a ring that is abused.
#[test]
fn another_disk_does_not_notice() {
    let (home, other_home) = (Home::new(), Home::new());
    let remote = Remote::new(&home.socket(), options(1));
    let other = Remote::new(&other_home.socket(), options(1));
    let mut machine = Machine::new(1, 16);
    let _other_frontend = machine.connect(&other_home.socket(), EVENT_INDEX);
    for (done, (what, misdeed)) in (1..).zip(MISDEEDS) {
        let mut bad = Machine::new(1, 16);
        let _frontend = bad.connect(&home.socket(), 0);
        misdeed(&mut bad);
        bad.kick(0);
        assert_eq!(machine.call(0, FLUSH, 0, &[], 0).status, 0);
        // One that goes at once may not be looked at any more.
        until(what, || remote.look().served.broken_rings == done);
    }
    assert_eq!(other.look().served.failures, 0);
}

#[test]
fn messages_that_make_no_sense_end_the_connection_and_no_more() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(2));
    let garbage: [&[u8]; 4] = [
        &[0xff; 64],
        // GET_FEATURES with a body that is missing.
        &[1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 0, 0],
        // An unknown request.
        &[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0, 0],
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(home.socket()).expect("it listens");
        stream.write_all(bytes).expect("room");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("connected");
        stream.set_read_timeout(Some(LATE)).expect("a time");
        let mut rest = Vec::new();
        // Whatever it says, it ends.
        let _ = stream.read_to_end(&mut rest);
    }
    // And numbers beyond what was offered.
    let refused: [fn(&mut vhost::vhost_user::Frontend) -> bool; 5] = [
        |frontend| frontend.set_features(!(1 << 27)).is_err(),
        |frontend| frontend.set_vring_num(0, 3).is_err(),
        |frontend| frontend.set_vring_num(0, 2048).is_err(),
        |frontend| frontend.set_vring_num(63, 16).is_err(),
        |frontend| frontend.set_vring_base(5, 0).is_err(),
    ];
    for (number, refused) in refused.iter().enumerate() {
        let mut frontend = connect(&home.socket(), 64);
        frontend.get_features().expect("features");
        let protocol = frontend.get_protocol_features().expect("features");
        frontend.set_features(1 << 30 | 1 << 32).expect("agreed");
        frontend.set_protocol_features(protocol).expect("agreed");
        frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        assert!(refused(&mut frontend), "{number}");
    }
    let mut machine = Machine::new(2, 16);
    let _frontend = machine.connect(&home.socket(), 0);
    assert_eq!(machine.call(1, OUT, 0, &[7; 4096], 0).status, 0);
    drop(remote.stop());
}

/// A VM's process that stalls in the middle of a message does not keep the shard.
#[test]
fn a_vm_that_stalls_stalls_alone() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    let mut stalled = UnixStream::connect(home.socket()).expect("it listens");
    stalled.write_all(&[1, 0, 0]).expect("room");
    std::thread::sleep(SOON);
    // The shard answers, and can be stopped.
    assert_eq!(remote.look().served.connections, 1);
    let (seen, _) = remote.stop();
    assert_eq!(seen.served.connections, 1);
}
