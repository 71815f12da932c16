//! The deterministic engine.
#![cfg(ogee_sim)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ogee_runtime::executor::block_on_seeded;
use ogee_runtime::file::{DmaFile, OpenOptions};
use ogee_runtime::{Buffer, now, random_u64, sleep, spawn, yield_now};

#[test]
fn timers_fire_in_virtual_order_and_take_no_real_time() {
    block_on_seeded(1, async {
        let start = now();
        let order = Rc::new(RefCell::new(Vec::new()));
        let tasks = [3, 1, 2].map(|hours| {
            let order = Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_secs(hours * 3600)).await;
                order.borrow_mut().push((hours, now() - start));
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        let expected = [1, 2, 3].map(|hours| (hours, Duration::from_secs(hours * 3600)));
        assert_eq!(*order.borrow(), expected);
    });
}

/// The order in which twenty tasks take their steps, with files and random numbers among them.
fn run(seed: u64) -> Vec<(u64, u64)> {
    block_on_seeded(seed, async {
        let options = OpenOptions {
            create: true,
            ..OpenOptions::default()
        };
        let file = DmaFile::open("shared", options).await.expect("a file");
        let trace = Rc::new(RefCell::new(Vec::new()));
        let tasks: Vec<_> = (0..20_u64)
            .map(|number| {
                let (trace, file) = (Rc::clone(&trace), file.clone());
                spawn(async move {
                    for _ in 0..5 {
                        file.write_at(number * 512, Buffer::zeroed(512))
                            .await
                            .expect("a write");
                        yield_now().await;
                        trace.borrow_mut().push((number, random_u64()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("never cancelled");
        }
        trace.take()
    })
}

#[test]
fn a_seed_replays_and_another_differs() {
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

#[test]
fn worlds_share_no_files() {
    let options = OpenOptions {
        create: true,
        ..OpenOptions::default()
    };
    block_on_seeded(1, async {
        DmaFile::open("mine", options).await.unwrap();
    });
    block_on_seeded(1, async {
        assert!(DmaFile::open("mine", OpenOptions::default()).await.is_err());
    });
}

#[test]
#[should_panic(expected = "woken by nobody")]
fn panics_come_out() {
    block_on_seeded(1, async {
        drop(spawn(async { panic!("woken by nobody") }));
        sleep(Duration::from_secs(1)).await;
    });
}
