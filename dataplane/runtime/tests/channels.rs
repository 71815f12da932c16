//! Channels and locks, on whichever engine was built.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use ogee_runtime::channel::mpsc::{TryRecvError, TrySendError};
use ogee_runtime::channel::{Closed, Gate, Mutex, Notify, Semaphore, mpsc, oneshot, watch};
use ogee_runtime::executor::block_on;
use ogee_runtime::{sleep, spawn, spawn_scoped, timeout, yield_now};

/// Long against everything that these tests wait for, short against a hung test.
const PATIENCE: Duration = Duration::from_secs(20);

/// Lets every task that can run do so.
async fn settle() {
    for _ in 0..4 {
        yield_now().await;
    }
}

#[test]
fn oneshot_delivers_after_the_sender_is_gone() {
    block_on(async {
        let (sender, receiver) = oneshot::channel();
        sender.send(7).unwrap();
        assert_eq!(receiver.await, Ok(7));
    });
}

#[test]
fn oneshot_wakes_the_receiver() {
    block_on(async {
        let (sender, receiver) = oneshot::channel();
        let waiter = spawn(receiver);
        settle().await;
        sender.send("late").unwrap();
        assert_eq!(waiter.await.unwrap(), Ok("late"));
    });
}

#[test]
fn oneshot_tells_both_sides_of_the_end() {
    block_on(async {
        let (sender, receiver) = oneshot::channel::<u8>();
        let waiter = spawn(receiver);
        settle().await;
        drop(sender);
        assert_eq!(waiter.await.unwrap(), Err(Closed));

        let (sender, receiver) = oneshot::channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send(3), Err(3));
    });
}

#[test]
fn mpsc_pushes_back_and_keeps_order() {
    block_on(async {
        let (sender, mut receiver) = mpsc::channel(2);
        let sent = Rc::new(Cell::new(0));
        let producer = spawn({
            let sent = Rc::clone(&sent);
            async move {
                for value in 0..10 {
                    sender.send(value).await.unwrap();
                    sent.set(value + 1);
                }
            }
        });
        settle().await;
        assert_eq!(sent.get(), 2, "a channel of two took more");
        for expected in 0..10 {
            assert_eq!(receiver.recv().await, Some(expected));
        }
        producer.await.unwrap();
        assert_eq!(receiver.recv().await, None);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn mpsc_full_and_closed_return_the_value() {
    block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!((sender.len(), receiver.len()), (1, 1));
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.try_send(3).unwrap();
        let waiting = spawn({
            let sender = sender.clone();
            async move { sender.send(4).await }
        });
        settle().await;
        drop(receiver);
        assert_eq!(waiting.await.unwrap().map_err(|error| error.0), Err(4));
        assert!(sender.is_closed());
        assert_eq!(sender.try_send(5), Err(TrySendError::Closed(5)));
    });
}

#[test]
fn mpsc_serves_waiting_senders_in_order_and_lets_none_overtake() {
    block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        for value in 1..4 {
            let sender = sender.clone();
            drop(spawn(async move { sender.send(value).await }));
            settle().await;
        }
        assert_eq!(receiver.try_recv(), Ok(0));
        // The place belongs to the first waiter although it has not run yet.
        assert_eq!(sender.try_send(99), Err(TrySendError::Full(99)));
        for expected in 1..4 {
            assert_eq!(receiver.recv().await, Some(expected));
        }
    });
}

#[test]
fn mpsc_place_of_a_dropped_sender_passes_on() {
    block_on(async {
        let (sender, mut receiver) = mpsc::channel(1);
        sender.try_send(0).unwrap();
        let first = spawn_scoped({
            let sender = sender.clone();
            async move { sender.send(1).await }
        });
        settle().await;
        let second = spawn(async move { sender.send(2).await });
        settle().await;
        assert_eq!(receiver.try_recv(), Ok(0));
        drop(first);
        assert_eq!(timeout(PATIENCE, receiver.recv()).await, Ok(Some(2)));
        second.await.unwrap().unwrap();
    });
}

#[test]
fn mpsc_weak_senders_do_not_keep_the_channel_open() {
    block_on(async {
        let (sender, mut receiver) = mpsc::channel::<u8>(1);
        let weak = sender.downgrade();
        weak.upgrade().unwrap().try_send(1).unwrap();
        drop(sender);
        assert!(weak.upgrade().is_none());
        assert_eq!(receiver.next().await, Some(1));
        assert_eq!(receiver.next().await, None);
    });
}

#[test]
fn watch_shows_the_latest_value() {
    block_on(async {
        let (sender, mut receiver) = watch::channel(0);
        assert!(!receiver.has_changed());
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        receiver.changed().await.unwrap();
        assert_eq!(*receiver.borrow(), 2);
        assert!(!receiver.has_changed());

        let mut late = sender.subscribe();
        assert!(!late.has_changed());
        assert!(!sender.send_if_modified(|_| false));
        assert!(!late.has_changed());
        assert!(sender.send_if_modified(|value| {
            *value += 1;
            true
        }));
        assert_eq!(*late.borrow_and_update(), 3);
        assert!(!late.has_changed());
        assert!(
            receiver.clone().has_changed(),
            "a clone has seen what its origin has"
        );
    });
}

#[test]
fn watch_wakes_all_receivers_and_tells_them_of_the_end() {
    block_on(async {
        let (sender, receiver) = watch::channel(0);
        let watchers: Vec<_> = (0..3)
            .map(|_| {
                let mut receiver = receiver.clone();
                spawn(async move {
                    receiver.changed().await.unwrap();
                    let seen = *receiver.borrow();
                    (seen, receiver.changed().await)
                })
            })
            .collect();
        settle().await;
        sender.send(5).unwrap();
        settle().await;
        drop(sender);
        for watcher in watchers {
            assert_eq!(watcher.await.unwrap(), (5, Err(Closed)));
        }
    });
}

#[test]
fn watch_without_receivers_returns_the_value() {
    block_on(async {
        let (sender, receiver) = watch::channel(0);
        drop(receiver);
        assert_eq!(sender.send(1).map_err(|error| error.0), Err(1));
        assert_eq!(*sender.borrow(), 0);
        assert_eq!(sender.send_replace(2), 0);
        assert_eq!(*sender.borrow(), 2);
    });
}

#[test]
fn notify_loses_no_wakeup_between_check_and_await() {
    block_on(async {
        let notify = Notify::new();
        let notified = notify.notified();
        // What a check in between would miss.
        notify.notify_all();
        timeout(PATIENCE, notified).await.unwrap();

        notify.notify_one();
        timeout(PATIENCE, notify.notified()).await.unwrap();
    });
}

#[test]
fn notify_all_is_not_remembered() {
    block_on(async {
        let notify = Notify::new();
        notify.notify_all();
        assert!(
            timeout(Duration::from_millis(2), notify.notified())
                .await
                .is_err()
        );
    });
}

#[test]
fn notify_one_wakes_one_and_is_remembered_once() {
    block_on(async {
        let notify = Notify::new();
        let woken = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let (notify, woken) = (notify.clone(), Rc::clone(&woken));
            drop(spawn(async move {
                notify.notified().await;
                woken.set(woken.get() + 1);
            }));
        }
        settle().await;
        notify.notify_one();
        settle().await;
        assert_eq!(woken.get(), 1);
        notify.notify_all();
        settle().await;
        assert_eq!(woken.get(), 3);

        notify.notify_one();
        notify.notify_one();
        timeout(PATIENCE, notify.notified()).await.unwrap();
        assert!(
            timeout(Duration::from_millis(2), notify.notified())
                .await
                .is_err()
        );
    });
}

#[test]
fn notify_one_passes_on_when_the_chosen_waiter_is_dropped() {
    block_on(async {
        let notify = Notify::new();
        let first = spawn_scoped({
            let notify = notify.clone();
            async move { notify.notified().await }
        });
        settle().await;
        let second = spawn({
            let notify = notify.clone();
            async move { notify.notified().await }
        });
        settle().await;
        notify.notify_one();
        drop(first);
        timeout(PATIENCE, second).await.unwrap().unwrap();
    });
}

#[test]
fn semaphore_is_fifo_across_sizes() {
    block_on(async {
        let semaphore = Semaphore::new(4);
        let held = semaphore.try_acquire(3).unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        for (name, count) in [("large", 4), ("small", 1)] {
            let (semaphore, order) = (semaphore.clone(), Rc::clone(&order));
            drop(spawn(async move {
                let permit = semaphore.acquire(count).await;
                order.borrow_mut().push(name);
                drop(permit);
            }));
            settle().await;
        }
        assert!(order.borrow().is_empty(), "the small one overtook");
        assert!(semaphore.try_acquire(1).is_none(), "a newcomer overtook");
        assert_eq!(semaphore.available(), 1);
        drop(held);
        settle().await;
        assert_eq!(*order.borrow(), ["large", "small"]);
        assert_eq!(semaphore.available(), 4);
    });
}

#[test]
fn semaphore_waiter_that_gives_up_unblocks_the_next() {
    block_on(async {
        let semaphore = Semaphore::new(2);
        let held = semaphore.acquire(1).await;
        let large = spawn_scoped({
            let semaphore = semaphore.clone();
            async move { semaphore.acquire(2).await.count() }
        });
        settle().await;
        let small = spawn({
            let semaphore = semaphore.clone();
            async move { semaphore.acquire(1).await.count() }
        });
        settle().await;
        assert!(!small.is_finished());
        drop(large);
        assert_eq!(timeout(PATIENCE, small).await.unwrap(), Ok(1));
        drop(held);
        assert_eq!(semaphore.available(), semaphore.total());
    });
}

#[test]
fn semaphore_permits_granted_to_a_dropped_waiter_return() {
    block_on(async {
        let semaphore = Semaphore::new(1);
        let held = semaphore.acquire(1).await;
        let waiter = spawn_scoped({
            let semaphore = semaphore.clone();
            async move { semaphore.acquire(1).await.count() }
        });
        settle().await;
        drop(held);
        drop(waiter);
        assert_eq!(semaphore.available(), 1);
    });
}

#[test]
#[should_panic(expected = "can never be had")]
fn semaphore_refuses_what_can_never_be() {
    block_on(async { Semaphore::new(1).acquire(2).await.count() });
}

#[test]
fn mutex_excludes_across_awaits_in_order() {
    block_on(async {
        let mutex = Rc::new(Mutex::new(Vec::new()));
        let guard = mutex.lock().await;
        let tasks: Vec<_> = (0..3)
            .map(|number| {
                let mutex = Rc::clone(&mutex);
                async move {
                    let mut guard = mutex.lock().await;
                    let before = guard.len();
                    sleep(Duration::from_micros(50)).await;
                    guard.push(number);
                    assert_eq!(guard.len(), before + 1);
                }
            })
            .collect();
        let mut handles = Vec::new();
        for task in tasks {
            handles.push(spawn(task));
            settle().await;
        }
        assert!(mutex.try_lock().is_none());
        drop(guard);
        for handle in handles {
            handle.await.unwrap();
        }
        assert_eq!(*mutex.try_lock().unwrap(), [0, 1, 2]);
    });
}

#[test]
fn gate_waits_for_those_inside_and_admits_no_more() {
    block_on(async {
        let gate = Gate::new();
        let (first, second) = (gate.enter().unwrap(), gate.enter().unwrap());
        assert_eq!(gate.inside(), 2);
        let closing = spawn({
            let gate = gate.clone();
            async move { gate.close().await }
        });
        settle().await;
        assert!(gate.enter().is_none());
        drop(first);
        settle().await;
        assert!(!closing.is_finished());
        drop(second);
        timeout(PATIENCE, closing).await.unwrap().unwrap();
        timeout(PATIENCE, gate.close()).await.unwrap();
    });
}
