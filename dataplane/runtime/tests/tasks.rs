//! Tasks and timers, on whichever engine was built.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ogee_runtime::channel::oneshot;
use ogee_runtime::executor::block_on;
use ogee_runtime::{
    Cancelled, Elapsed, now, sleep, sleep_until, spawn, spawn_scoped, timeout, timeout_at,
    yield_now,
};

/// Sets a flag when dropped.
struct Witness(Rc<Cell<bool>>);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

fn witness() -> (Witness, Rc<Cell<bool>>) {
    let is_gone = Rc::new(Cell::new(false));
    (Witness(Rc::clone(&is_gone)), is_gone)
}

#[test]
fn a_task_returns_its_output() {
    block_on(async {
        assert_eq!(spawn(async { 5 }).await, Ok(5));
        let slow = spawn(async {
            sleep(Duration::from_millis(1)).await;
            6
        });
        assert!(!slow.is_finished());
        assert_eq!(slow.await, Ok(6));
    });
}

#[test]
fn a_detached_task_runs_on() {
    block_on(async {
        let (sender, receiver) = oneshot::channel();
        drop(spawn(async move {
            yield_now().await;
            sender.send(1)
        }));
        assert_eq!(receiver.await, Ok(1));
    });
}

#[test]
fn an_aborted_task_drops_its_future_at_once() {
    block_on(async {
        let (witness, is_gone) = witness();
        let task = spawn(async move {
            let _witness = witness;
            pending::<()>().await;
        });
        yield_now().await;
        task.abort();
        assert!(is_gone.get());
        assert!(task.is_finished());
        assert_eq!(task.await, Err(Cancelled));
    });
}

#[test]
fn a_scoped_task_does_not_outlive_its_handle() {
    block_on(async {
        let (witness, is_gone) = witness();
        let task = spawn_scoped(async move {
            let _witness = witness;
            pending::<()>().await;
        });
        yield_now().await;
        assert!(!is_gone.get());
        drop(task);
        assert!(is_gone.get());

        assert_eq!(spawn_scoped(async { 1 }).await, Ok(1));
    });
}

#[test]
fn a_task_dropped_before_its_first_poll_never_runs() {
    block_on(async {
        let has_run = Rc::new(Cell::new(false));
        drop(spawn_scoped({
            let has_run = Rc::clone(&has_run);
            async move { has_run.set(true) }
        }));
        for _ in 0..4 {
            yield_now().await;
        }
        assert!(!has_run.get());
    });
}

#[test]
fn a_task_may_cancel_itself() {
    block_on(async {
        let own = Rc::new(RefCell::new(None));
        let (witness, is_gone) = witness();
        let task = spawn_scoped({
            let own = Rc::clone(&own);
            async move {
                let _witness = witness;
                yield_now().await;
                drop(own.borrow_mut().take());
                pending::<()>().await;
            }
        });
        *own.borrow_mut() = Some(task);
        while !is_gone.get() {
            yield_now().await;
        }
        assert!(own.borrow().is_none());
    });
}

#[test]
fn the_tasks_left_over_end_with_the_executor() {
    let (witness, is_gone) = witness();
    block_on(async {
        drop(spawn(async move {
            let _witness = witness;
            // A destructor that starts another task must not keep the executor alive either.
            let _spawner = SpawnOnDrop;
            pending::<()>().await;
        }));
        yield_now().await;
    });
    assert!(is_gone.get());
}

struct SpawnOnDrop;

impl Drop for SpawnOnDrop {
    fn drop(&mut self) {
        drop(spawn(pending::<()>()));
    }
}

#[test]
fn sleeps_end_in_the_order_of_their_deadlines() {
    block_on(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let start = now();
        let tasks: Vec<_> = [30, 10, 20]
            .map(|millis| {
                let order = Rc::clone(&order);
                spawn(async move {
                    sleep_until(start + Duration::from_millis(millis)).await;
                    assert!(now() >= start + Duration::from_millis(millis));
                    order.borrow_mut().push(millis);
                })
            })
            .into();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), [10, 20, 30]);
    });
}

#[test]
fn timeouts_prefer_the_result() {
    block_on(async {
        assert_eq!(timeout(Duration::ZERO, async { 1 }).await, Ok(1));
        assert_eq!(timeout_at(now(), pending::<()>()).await, Err(Elapsed));
        let late = timeout(Duration::from_millis(1), pending::<()>()).await;
        assert_eq!(late, Err(Elapsed));
        let early = timeout(Duration::MAX, sleep(Duration::from_millis(1))).await;
        assert_eq!(early, Ok(()));
    });
}

#[test]
fn a_dropped_sleep_does_not_fire() {
    block_on(async {
        for _ in 0..100 {
            timeout(Duration::from_millis(1), yield_now())
                .await
                .unwrap();
        }
        sleep(Duration::from_millis(2)).await;
    });
}
