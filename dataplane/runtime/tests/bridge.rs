//! The bridge between shards and foreign threads, with real threads.
#![cfg(not(ogee_sim))]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use ogee_runtime::bridge;
use ogee_runtime::channel::mpsc::TrySendError;
use ogee_runtime::executor::{ShardBuilder, block_on};
use ogee_runtime::{sleep, spawn, timeout};

/// A lost wake-up shows as a timeout instead of a hung test.
const PATIENCE: Duration = Duration::from_secs(30);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor of a foreign thread: it knows nothing but wakers.
fn park_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park_timeout(PATIENCE);
    }
}

fn foreign<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().spawn(body).expect("a thread")
}

#[test]
fn threads_and_shards_wake_each_other() {
    let (to_shard, mut from_thread) = bridge::channel::<u32>(1);
    let (to_thread, mut from_shard) = bridge::channel::<u32>(1);
    let shard = ShardBuilder::new("echo")
        .start(move || async move {
            let mut count = 0;
            // Nothing else runs here: between messages the shard sleeps in the kernel.
            while let Some(value) = timeout(PATIENCE, from_thread.recv()).await.expect("woken") {
                to_thread.send(value + 1).await.expect("the thread listens");
                count += 1;
            }
            count
        })
        .unwrap();
    let thread = foreign(move || {
        for value in 0..2000 {
            park_on(to_shard.send(value)).expect("the shard listens");
            assert_eq!(park_on(from_shard.recv()), Some(value + 1));
        }
    });
    thread.join().unwrap();
    assert_eq!(shard.join(), Ok(2000));
}

#[test]
fn a_full_bridge_makes_both_kinds_of_senders_wait() {
    let (sender, mut receiver) = bridge::channel::<u32>(4);
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let sender = sender.clone();
            foreign(move || (0..500).try_for_each(|value| park_on(sender.send(value))))
        })
        .collect();
    let shard = ShardBuilder::new("sender")
        .start(move || async move {
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let sender = sender.clone();
                    spawn(async move {
                        for value in 0..500 {
                            sender.send(value).await.expect("the receiver listens");
                        }
                    })
                })
                .collect();
            drop(sender);
            for task in tasks {
                task.await.expect("never cancelled");
            }
        })
        .unwrap();
    let total: u32 = block_on(async move {
        let mut total = 0;
        while let Some(value) = timeout(PATIENCE, receiver.recv()).await.expect("woken") {
            total += value;
        }
        total
    });
    assert_eq!(total, 6 * (0..500).sum::<u32>());
    for thread in threads {
        thread.join().unwrap().unwrap();
    }
    shard.join().unwrap();
}

#[test]
fn full_and_closed_return_the_value() {
    let (sender, mut receiver) = bridge::channel(1);
    sender.try_send(1).unwrap();
    assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    assert_eq!(receiver.try_recv(), Ok(1));
    sender.try_send(3).unwrap();
    let waiting = foreign({
        let sender = sender.clone();
        move || park_on(sender.send(4))
    });
    thread::yield_now();
    drop(receiver);
    assert_eq!(waiting.join().unwrap().map_err(|error| error.0), Err(4));
    assert!(sender.is_closed());
    assert_eq!(sender.try_send(5), Err(TrySendError::Closed(5)));
}

#[test]
fn the_last_sender_ends_the_stream() {
    let (sender, mut receiver) = bridge::channel(4);
    let thread = foreign(move || {
        sender.try_send(1).unwrap();
        drop(sender.clone());
        drop(sender);
    });
    block_on(async move {
        assert_eq!(timeout(PATIENCE, receiver.recv()).await, Ok(Some(1)));
        assert_eq!(timeout(PATIENCE, receiver.recv()).await, Ok(None));
    });
    thread.join().unwrap();
}

#[test]
fn wakers_may_outlive_their_shard() {
    let (sender, mut receiver) = bridge::channel::<u8>(1);
    let (keep, kept) = std::sync::mpsc::channel();
    let shard = ShardBuilder::new("short")
        .start(move || async move {
            let waker = spawn(std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())));
            keep.send(waker.await.expect("never cancelled"))
                .expect("the test listens");
            drop(spawn(async move { receiver.recv().await }));
            sleep(Duration::from_millis(1)).await;
        })
        .unwrap();
    shard.join().unwrap();
    let waker = kept.recv().unwrap();
    waker.wake_by_ref();
    drop(waker);
    // The receiver's waker belonged to a shard that is gone.
    assert!(matches!(sender.try_send(1), Err(TrySendError::Closed(1))));
}
