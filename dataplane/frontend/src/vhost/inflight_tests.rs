//! What a process that died leaves, at each point at which it can die.

use super::*;

fn fresh(size: u16) -> (InflightMemory, Inflight) {
    let (memory, _file) = InflightMemory::create(2, size).expect("a memfd");
    let mut queue = memory.queue(1).expect("two queues");
    assert_eq!(queue.open(size, 7), Ok(None));
    (memory, queue)
}

fn used(heads: &[u16]) -> Vec<Used> {
    let of = |head: &u16| Used {
        head: *head,
        written: 1,
    };
    heads.iter().map(of).collect()
}

fn reopened(memory: &InflightMemory, used_index: u16) -> Result<Vec<u16>, RingFault> {
    let mut queue = memory.queue(1)?;
    Ok(queue.open(8, used_index)?.unwrap_or_default())
}

#[test]
fn what_was_taken_and_not_answered_comes_again_in_order() {
    let (memory, mut queue) = fresh(8);
    for head in [5, 0, 3, 7] {
        queue.mark(head).expect("within the record");
    }
    assert_eq!(reopened(&memory, 7), Ok(vec![5, 0, 3, 7]));
    let answered = used(&[0, 7]);
    queue.link(&answered).expect("within the record");
    // Died before the answers were published: all four are still open.
    assert_eq!(reopened(&memory, 7), Ok(vec![5, 0, 3, 7]));
    // Died after it, before the marks were cleared.
    assert_eq!(reopened(&memory, 9), Ok(vec![5, 3]));
    queue.clear(&answered, 9).expect("within the record");
    assert_eq!(reopened(&memory, 9), Ok(vec![5, 3]));
    // The next process goes on counting.
    let mut next = memory.queue(1).expect("two queues");
    assert_eq!(next.open(8, 9), Ok(Some(vec![5, 3])));
    next.mark(0).expect("within the record");
    assert_eq!(reopened(&memory, 9), Ok(vec![5, 3, 0]));
}

#[test]
fn batches_that_died_half_cleared_are_settled_once() {
    let (memory, mut queue) = fresh(8);
    for (used_index, heads) in [(7_u16, [0_u16, 1]), (9, [1, 0]), (11, [6, 2])] {
        for head in heads {
            queue.mark(head).expect("within the record");
        }
        let answered = used(&heads);
        queue.link(&answered).expect("within the record");
        assert_eq!(reopened(&memory, used_index + 2), Ok(Vec::new()));
        // And again, after that was itself cut short or not.
        assert_eq!(reopened(&memory, used_index + 2), Ok(Vec::new()));
        queue
            .clear(&answered, used_index + 2)
            .expect("within the record");
    }
}

#[test]
fn a_record_that_makes_no_sense_stops_the_ring() {
    let fault = |result: Result<Vec<u16>, RingFault>| {
        assert!(
            matches!(result, Err(RingFault::Inflight { .. })),
            "{result:?}"
        );
    };
    let (memory, queue) = fresh(8);
    fault(reopened(&memory, 7 + 9));
    queue
        .store_u16(BATCH_HEAD_AT, 9)
        .expect("within the record");
    fault(reopened(&memory, 8));
    let (memory, queue) = fresh(8);
    queue.store_u16(VERSION_AT, 2).expect("within the record");
    fault(reopened(&memory, 7));
    let (memory, queue) = fresh(8);
    queue.store_u16(SIZE_AT, 4).expect("within the record");
    fault(reopened(&memory, 7));
    let (memory, mut queue) = fresh(8);
    queue.mark(6).expect("within the record");
    let opened = |size| {
        let mut queue = memory.queue(1)?;
        Ok(queue.open(size, 7)?.unwrap_or_default())
    };
    fault(opened(4));
    fault(opened(16));
    fault(memory.queue(2).map(|_| Vec::new()));
}

#[test]
fn a_file_that_is_too_short_or_sizes_beyond_the_limits_are_refused() {
    let (_, file) = InflightMemory::create(1, 8).expect("a memfd");
    let copy = || file.try_clone().expect("a descriptor");
    assert!(InflightMemory::map(copy(), 0, 1, 8).is_ok());
    assert!(InflightMemory::map(copy(), 0, 2, 1024).is_err());
    assert!(InflightMemory::map(copy(), 1 << 40, 1, 8).is_err());
    assert!(InflightMemory::map(copy(), 0, QUEUES_MAX + 1, 8).is_err());
    assert!(InflightMemory::map(copy(), 0, 0, 8).is_err());
    assert!(InflightMemory::map(copy(), 0, 1, QUEUE_SIZE_MAX + 1).is_err());
    // Nobody can shrink it under us.
    assert!(file.set_len(0).is_err());
}
