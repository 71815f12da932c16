//! Shards and their threads.

use std::time::Duration;

use ogee_runtime::executor::{Placement, ShardBuilder, block_on};
use ogee_runtime::{sleep, spawn};

#[test]
fn a_shard_runs_on_its_own_named_thread() {
    let shard = ShardBuilder::new("shard-7")
        .placement(Placement::Cpu(0))
        .spin_before_park(Duration::from_micros(20))
        .start(|| async {
            sleep(Duration::from_millis(1)).await;
            std::thread::current().name().map(str::to_owned)
        })
        .unwrap();
    assert_eq!(shard.join().unwrap().as_deref(), Some("shard-7"));
}

#[test]
fn a_panic_in_the_main_future_is_returned() {
    let shard = ShardBuilder::new("doomed")
        .start(|| async { panic!("broken {}", 1) })
        .unwrap();
    let panicked: Result<(), _> = shard.join();
    let panicked = panicked.unwrap_err();
    assert_eq!(
        (panicked.name.as_str(), panicked.message.as_str()),
        ("doomed", "broken 1")
    );
}

#[test]
fn a_panic_in_any_task_ends_the_shard() {
    let shard = ShardBuilder::new("doomed")
        .start(|| async {
            drop(spawn(async { panic!("in a task") }));
            std::future::pending::<()>().await;
        })
        .unwrap();
    assert_eq!(shard.join().unwrap_err().message, "in a task");
}

#[test]
fn a_thread_can_run_executors_one_after_another() {
    for round in 0..3 {
        assert_eq!(
            block_on(async { spawn(async move { round }).await }),
            Ok(round)
        );
    }
}

#[test]
#[should_panic(expected = "already runs")]
fn executors_do_not_nest() {
    block_on(async { block_on(async {}) });
}

#[cfg(not(ogee_sim))]
#[test]
fn a_processor_that_does_not_exist_is_an_error() {
    let placed = ShardBuilder::new("nowhere").placement(Placement::Cpu(100_000));
    assert!(placed.start(|| async {}).is_err());
}

/// Nothing but the timer wakes it: neither the engine's own timers nor a poll.
#[cfg(not(ogee_sim))]
#[test]
fn an_idle_executor_sleeps_until_its_timer() {
    block_on(async {
        drop(spawn(std::future::pending::<()>()));
        sleep(Duration::from_millis(1)).await;
        let before = sleeps();
        sleep(Duration::from_millis(300)).await;
        let sleeps = sleeps() - before;
        assert!((1..10).contains(&sleeps), "{sleeps} sleeps for one timer");
    });
}

/// How often this thread has given up its processor to wait.
#[cfg(not(ogee_sim))]
fn sleeps() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("a status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = line.expect("a count of switches").trim();
    count.parse().expect("a number")
}
