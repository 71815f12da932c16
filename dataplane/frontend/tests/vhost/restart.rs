//! Servers that end with requests under way, and their successors.

use crate::driver::{EVENT_INDEX, IN, Machine, OUT};
use crate::served::{Home, Order, Remote, options};
use std::collections::HashMap;
use std::time::Duration;

/// The guest sees a pause and no error: every request is answered, once, by one server or the next.
#[test]
fn what_a_server_left_under_way_its_successor_answers() {
    for (features, round) in [(0, 0), (EVENT_INDEX, 1), (EVENT_INDEX, 2), (0, 3)] {
        let home = Home::new();
        let mut machine = Machine::new(2, 16);
        let mut contents = Vec::new();
        let mut expected = vec![0_u8; 64 * 4096];
        let (mut repeated, mut last) = (0, 0);
        // Blocks that are under way, by queue and head: one write at a time on each.
        let mut busy = HashMap::new();
        for turn in 0..6_u8 {
            let remote = Remote::with_contents(&home.socket(), options(2), contents.clone(), false);
            if turn < 5 {
                remote.tell(Order::Delay(Duration::from_millis(4 + 3 * u64::from(turn))));
                remote.look();
            }
            let frontend = machine.connect(&home.socket(), features);
            // Whatever was answered and not told before is told now.
            for queue in &machine.queues {
                assert!(queue.interrupts() > 0, "a start interrupts");
            }
            for queue in 0..2 {
                while machine.pending(queue) < 12 && turn < 5 {
                    let block = usize::from(last) % 64;
                    let byte = turn * 40 + 1 + last % 37;
                    if block / 32 == queue && !busy.values().any(|other| *other == block) {
                        expected[block * 4096..][..4096].fill(byte);
                        let head = machine.ask(queue, OUT, block as u64 * 8, &[byte; 4096], 0);
                        busy.insert((queue, head), block);
                    }
                    last = last.wrapping_add(1);
                }
                machine.kick(queue);
            }
            if turn < 5 {
                std::thread::sleep(Duration::from_millis(2 + round * 3));
                let (seen, now) = remote.kill();
                (repeated, contents) = (repeated + seen.served.repeated, now);
                drop(frontend);
                // The blocks that are under way may hold either; nobody has been told.
                for queue in 0..2 {
                    while let Some(answer) = machine.poll(queue) {
                        assert_eq!(answer.status, 0);
                        busy.remove(&(queue, answer.head));
                    }
                }
                continue;
            }
            for queue in 0..2 {
                while machine.pending(queue) > 0 {
                    assert_eq!(machine.answer(queue).status, 0);
                }
            }
            let (seen, now) = remote.stop();
            repeated += seen.served.repeated;
            drop(frontend);
            assert!(now[..expected.len()] == expected[..], "round {round}");
        }
        assert!(repeated > 0, "something was under way");
    }
}

/// The same process, another connection: as when a VM's process starts anew.
#[test]
fn a_connection_that_breaks_is_taken_up_by_the_next() {
    let home = Home::new();
    let remote = Remote::new(&home.socket(), options(1));
    remote.tell(Order::Delay(Duration::from_millis(20)));
    let mut machine = Machine::new(1, 16);
    let mut answered = 0;
    for round in 0..8_u8 {
        let frontend = machine.connect(&home.socket(), EVENT_INDEX);
        for block in 0..4 {
            if machine.pending(0) < 16 {
                machine.ask(0, OUT, block * 8, &[round + 1; 4096], 0);
            }
        }
        machine.kick(0);
        std::thread::sleep(Duration::from_millis(5));
        drop(frontend);
        while machine.poll(0).is_some() {
            answered += 1;
        }
    }
    let frontend = machine.connect(&home.socket(), EVENT_INDEX);
    while machine.pending(0) > 0 {
        assert_eq!(machine.answer(0).status, 0);
        answered += 1;
    }
    assert_eq!(answered, 32);
    let read = machine.call(0, IN, 0, &[], 16 << 10);
    assert_eq!(read.data, vec![8; 16 << 10]);
    drop(frontend);
    remote.stop();
}
