//! A driver that is not ours: libblkio's, through the `blkio` crate.

use crate::served::{Home, Remote, options};
use blkio::{Blkio, Blkioq, Completion, ReqFlags};
use ogee_frontend::vhost::DiskOptions;
use std::time::Duration;

const BLOCK: usize = 4096;

struct Native {
    _blkio: Blkio,
    queues: Vec<Blkioq>,
    memory: *mut u8,
}

fn open(home: &Home, queues: i32, queue_size: i32) -> Native {
    let mut blkio = Blkio::new("virtio-blk-vhost-user").expect("the driver is built in");
    let path = home.socket();
    blkio
        .set_str("path", path.to_str().expect("plain"))
        .expect("a path");
    blkio.connect().expect("it listens");
    blkio.set_i32("num-queues", queues).expect("so many");
    blkio.set_i32("queue-size", queue_size).expect("so large");
    let started = blkio.start().expect("it starts");
    let region = blkio.alloc_mem_region(1 << 20).expect("memory");
    blkio.map_mem_region(&region).expect("shared");
    let memory = region.addr as *mut u8;
    Native {
        _blkio: blkio,
        queues: started.queues,
        memory,
    }
}

/// A slot's block, which no request uses now.
fn block<'a>(memory: *mut u8, slot: usize) -> &'a mut [u8] {
    // SAFETY: slots are few, and the region has room for 256.
    let start = unsafe { memory.add(slot * BLOCK) };
    // SAFETY: within the region, which outlives the test's use of it; its requests have ended.
    unsafe { std::slice::from_raw_parts_mut(start, BLOCK) }
}

fn complete(queue: &mut Blkioq, count: usize) {
    let mut done = 0;
    while done < count {
        let mut completions: Vec<std::mem::MaybeUninit<Completion>> = (0..count)
            .map(|_| std::mem::MaybeUninit::uninit())
            .collect();
        let found = queue
            .do_io(&mut completions, 1, None, None)
            .expect("answers");
        for completion in &completions[..found] {
            // SAFETY: the call says that it has filled so many.
            let completion = unsafe { completion.assume_init_ref() };
            assert_eq!(completion.ret, 0, "request {}", completion.user_data);
        }
        done += found;
    }
}

#[test]
fn a_native_driver_writes_and_reads_on_each_number_of_queues() {
    for (queues, size) in [(1, 4), (2, 64), (4, 256), (8, 128)] {
        let home = Home::new();
        // Two of them look for requests before they sleep.
        let poll = Duration::from_micros(if size > 100 { 300 } else { 0 });
        let options = DiskOptions { poll, ..options(8) };
        let remote = Remote::new(&home.socket(), options);
        let mut native = open(&home, queues, size);
        let slots = usize::try_from(size / 4).expect("small").clamp(1, 16);
        for (number, queue) in native.queues.iter_mut().enumerate() {
            for round in 0..8_usize {
                for slot in 0..slots {
                    let block = block(native.memory, slot);
                    block.fill(u8::try_from(number * 20 + round + slot % 7 + 1).expect("small"));
                    let at = ((number * 16 + slot) * BLOCK) as u64;
                    queue.write(at, block.as_ptr(), BLOCK, slot, ReqFlags::empty());
                }
                complete(queue, slots);
            }
            queue.flush(0, ReqFlags::empty());
            complete(queue, 1);
            for slot in 0..slots {
                let block = block(native.memory, slot);
                block.fill(0xee);
                let at = ((number * 16 + slot) * BLOCK) as u64;
                queue.read(at, block.as_mut_ptr(), BLOCK, slot, ReqFlags::empty());
            }
            complete(queue, slots);
            for slot in 0..slots {
                let block = block(native.memory, slot);
                let byte = u8::try_from(number * 20 + 7 + slot % 7 + 1).expect("small");
                assert!(block.iter().all(|found| *found == byte), "{number} {slot}");
            }
            queue.discard(
                (number * 16 * BLOCK) as u64,
                BLOCK as u64,
                0,
                ReqFlags::empty(),
            );
            queue.write_zeroes(
                ((number * 16 + 1) * BLOCK) as u64,
                BLOCK as u64,
                0,
                ReqFlags::empty(),
            );
            complete(queue, 2);
        }
        drop(native);
        let (seen, _) = remote.stop();
        assert_eq!(seen.served.broken_rings, 0);
        assert_eq!(seen.served.failures, 0);
        let queues = usize::try_from(queues).expect("small");
        assert_eq!(seen.served.writes, (queues * 8 * slots) as u64);
    }
}
