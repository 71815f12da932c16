//! Every type of request, on all queues, small and large rings.

use crate::driver::{
    DISCARD, EVENT_INDEX, FLUSH, GET_ID, IN, MEMORY, Machine, OUT, WRITE_ZEROES, config, pair,
};
use crate::served::{Home, Order, Remote, SIZE, options};
use ogee_frontend::MemoryFault;
use ogee_frontend::vhost::DiskOptions;
use std::io::Read;
use std::time::Duration;
use vhost::vhost_user::VhostUserFrontend;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

fn segment(sector: u64, sectors: u32, flags: u32) -> [u8; 16] {
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&sector.to_le_bytes());
    raw[8..12].copy_from_slice(&sectors.to_le_bytes());
    raw[12..].copy_from_slice(&flags.to_le_bytes());
    raw
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from((at / 7 + seed) % 251).expect("small"))
        .collect()
}

#[test]
fn each_type_of_request_does_what_it_says() {
    for features in [0, EVENT_INDEX] {
        let home = Home::new();
        let remote = Remote::new(&home.socket(), options(1));
        let mut machine = Machine::new(1, 16);
        let frontend = machine.connect(&home.socket(), features);
        let data = pattern(1, 8192);
        let written = machine.call(0, OUT, 16, &data, 0);
        assert_eq!((written.status, written.written), (OK, 1));
        let read = machine.call(0, IN, 16, &[], 8192);
        assert_eq!((read.status, read.written), (OK, 8193));
        assert!(read.data == data);
        assert_eq!(machine.call(0, FLUSH, 0, &[], 0).status, OK);
        // Half a block: the rest of it stays.
        let half = pattern(9, 512);
        assert_eq!(machine.call(0, OUT, 17, &half, 0).status, OK);
        let read = machine.call(0, IN, 16, &[], 1536);
        assert!(read.data[..512] == data[..512] && read.data[512..1024] == half[..]);
        assert!(read.data[1024..] == data[1024..1536]);
        let id = machine.call(0, GET_ID, 0, &[], 20);
        assert_eq!(
            (id.status, id.written, &*id.data),
            (OK, 21, &b"serial-of-the-disk-a"[..])
        );
        assert_eq!(
            machine.call(0, DISCARD, 0, &segment(16, 8, 0), 0).status,
            OK
        );
        let read = machine.call(0, IN, 16, &[], 4096);
        assert!(read.data.iter().all(|byte| *byte == 0));
        assert_eq!(
            machine
                .call(0, WRITE_ZEROES, 0, &segment(24, 8, 1), 0)
                .status,
            OK
        );
        let read = machine.call(0, IN, 24, &[], 4096);
        assert!(read.data.iter().all(|byte| *byte == 0));
        assert_eq!(machine.call(0, 77, 0, &[], 0).status, UNSUPPORTED);
        assert_eq!(machine.call(0, IN, SIZE / 512, &[], 512).status, IO_ERROR);
        drop(frontend);
        let (seen, _) = remote.stop();
        assert_eq!(seen.served.connections, 1);
        assert_eq!((seen.disk.flushes, seen.disk.discards), (1, 1));
        assert_eq!(seen.served.broken_rings, 0);
    }
}

#[test]
fn many_requests_on_many_queues_all_end_and_are_announced() {
    for (queues, size, features) in [(1, 4, EVENT_INDEX), (2, 16, 0), (8, 256, EVENT_INDEX)] {
        let home = Home::new();
        let remote = Remote::new(&home.socket(), options(queues));
        remote.tell(Order::Delay(Duration::from_micros(300)));
        let mut machine = Machine::new(queues, size);
        let frontend = machine.connect(&home.socket(), features);
        let queues = usize::from(queues);
        let depth = usize::from(size.min(16));
        let mut expected = vec![0; usize::try_from(SIZE).expect("small")];
        for round in 0..20_usize {
            for queue in 0..queues {
                for slot in 0..depth {
                    let block = (queue * depth + slot + round) % 512;
                    let data = pattern(round * 31 + slot + queue, 4096);
                    expected[block * 4096..][..4096].copy_from_slice(&data);
                    machine.ask(queue, OUT, block as u64 * 8, &data, 0);
                }
                machine.kick(queue);
            }
            for queue in 0..queues {
                while machine.pending(queue) > 0 {
                    assert_eq!(machine.answer(queue).status, OK);
                }
                assert!(machine.queues[queue].interrupts() > 0, "the guest was told");
            }
        }
        drop(frontend);
        let (seen, contents) = remote.stop();
        assert_eq!(seen.served.writes, (20 * queues * depth) as u64);
        assert!(contents == expected);
    }
}

#[test]
fn a_disk_that_fails_fails_requests_and_not_the_ring() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    let mut machine = Machine::new(1, 16);
    let _frontend = machine.connect(&home.socket(), 0);
    remote.tell(Order::FailReads(Some(MemoryFault::Medium)));
    remote.tell(Order::FailWrites(Some(MemoryFault::NoSpace)));
    remote.look();
    let read = machine.call(0, IN, 0, &[], 4096);
    assert_eq!((read.status, read.written), (IO_ERROR, 1));
    assert_eq!(machine.call(0, OUT, 0, &[1; 512], 0).status, IO_ERROR);
    assert_eq!(machine.call(0, FLUSH, 0, &[], 0).status, IO_ERROR);
    remote.tell(Order::FailReads(None));
    remote.tell(Order::FailWrites(None));
    remote.look();
    assert_eq!(machine.call(0, OUT, 0, &[1; 4096], 0).status, OK);
    assert_eq!(machine.call(0, IN, 0, &[], 4096).data, [1; 4096]);
    assert_eq!(remote.look().served.failures, 3);
}

#[test]
fn a_read_only_disk_says_so_and_takes_no_writes() {
    let home = Home::new();
    let _remote = Remote::with_contents(&home.socket(), options(1), Vec::new(), true);
    let mut machine = Machine::new(1, 16);
    let _frontend = machine.connect(&home.socket(), 1 << 5);
    assert_eq!(machine.call(0, OUT, 0, &[1; 4096], 0).status, IO_ERROR);
    assert_eq!(
        machine.call(0, DISCARD, 0, &segment(0, 8, 0), 0).status,
        IO_ERROR
    );
    assert_eq!(machine.call(0, IN, 0, &[], 4096).data, [0; 4096]);
}

#[test]
fn a_disk_that_grows_tells_the_vm() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    let mut machine = Machine::new(1, 16);
    let mut frontend = machine.connect(&home.socket(), 0);
    let capacity = |space: Vec<u8>| u64::from_le_bytes(space[..8].try_into().expect("eight"));
    assert_eq!(capacity(config(&mut frontend, 60)), SIZE / 512);
    let (mut told, tells) = pair();
    frontend.set_backend_request_fd(&tells).expect("taken");
    drop(tells);
    assert_eq!(machine.call(0, IN, SIZE / 512, &[], 512).status, IO_ERROR);
    remote.tell(Order::Resize(2 * SIZE));
    let mut message = [0; 12];
    told.read_exact(&mut message).expect("a message");
    assert_eq!(message[..4], [2, 0, 0, 0]);
    assert_eq!(capacity(config(&mut frontend, 60)), 2 * SIZE / 512);
    assert_eq!(machine.call(0, IN, SIZE / 512, &[], 512).status, OK);
}

/// A carrier that can have others write to the guest's memory is told of it, as long as it is there.
#[test]
fn reads_go_to_where_they_are_wanted_in_memory_that_is_registered() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    let memory = usize::try_from(MEMORY).expect("small");
    let mut machine = Machine::new(1, 16);
    for round in 0..3 {
        let frontend = machine.connect(&home.socket(), EVENT_INDEX);
        let data = pattern(round, 32 << 10);
        assert_eq!(machine.call(0, OUT, 8, &data, 0).status, OK);
        for is_registered in [false, true] {
            if is_registered {
                assert_eq!(remote.register(), [memory]);
            }
            // One of two descriptors side by side, one that is too short, one whose ends are within blocks.
            for (skipped, len, is_direct) in [
                (0, 32 << 10, true),
                (0, 16 << 10, false),
                (1, 20 << 10, false),
            ] {
                let before = remote.look().disk.directs;
                let read = machine.call(0, IN, 8 + skipped as u64, &[], len);
                assert_eq!((read.status, read.written as usize), (OK, len + 1));
                let from = skipped * 512;
                assert!(read.data[..] == data[from..from + len]);
                let directs = u64::from(is_direct && is_registered);
                assert_eq!(remote.look().disk.directs - before, directs);
            }
        }
        // What is mapped anew is another one, not registered yet, and the one before is gone.
        machine.share_memory(&frontend);
        let before = remote.look().disk.directs;
        assert!(machine.call(0, IN, 8, &[], 32 << 10).data[..] == data[..]);
        assert_eq!(remote.look().disk.directs, before);
        assert_eq!(remote.register(), [memory]);
        drop(frontend);
        while !remote.register().is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[test]
fn memory_may_be_mapped_anew_and_rings_stopped_and_started() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(2));
    remote.tell(Order::Delay(Duration::from_millis(3)));
    let mut machine = Machine::new(2, 16);
    let mut frontend = machine.connect(&home.socket(), EVENT_INDEX);
    for round in 0..10_u8 {
        for slot in 0..8 {
            machine.ask(0, OUT, slot * 8, &[round + 1; 4096], 0);
        }
        machine.kick(0);
        // With requests under way.
        machine.share_memory(&frontend);
        let base = vhost::VhostBackend::get_vring_base(&frontend, 0).expect("a base");
        // All that was taken is answered by now; what was not stays in the ring.
        let taken = machine.queues[0]
            .available
            .wrapping_sub(u16::try_from(base).expect("an index"));
        while machine.pending(0) > usize::from(taken) {
            assert_eq!(machine.answer(0).status, OK);
        }
        assert!(machine.poll(0).is_none());
        machine.start(&mut frontend, 0);
        while machine.pending(0) > 0 {
            assert_eq!(machine.answer(0).status, OK);
        }
        assert_eq!(machine.call(1, IN, 0, &[], 4096).data, [round + 1; 4096]);
    }
}

#[test]
fn memory_that_is_not_to_be_registered_is_told_to_nobody() {
    let home = Home::new();
    let options = DiskOptions {
        announces_memory: false,
        ..options(1)
    };
    let remote = Remote::new(&home.socket(), options);
    let mut machine = Machine::new(1, 16);
    let _frontend = machine.connect(&home.socket(), EVENT_INDEX);
    assert_eq!(machine.call(0, IN, 8, &[], 32 << 10).status, OK);
    assert!(remote.register().is_empty());
    assert_eq!(remote.look().disk.directs, 0);
}
