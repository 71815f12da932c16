//! The defects of the io_uring engine's library, each shown not to reach our users.
//!
//! Each test fails if its workaround is taken out.
#![cfg(not(ogee_sim))]

use std::cell::Cell;
use std::future::poll_fn;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ogee_runtime::executor::{ShardBuilder, ShardHandle, block_on};
use ogee_runtime::file::{DmaFile, OpenOptions};
use ogee_runtime::limit::{EXECUTORS_PER_BUDGET, MEMLOCK_BUDGET, MEMLOCK_MIN, REGISTERED_MEMORY};
use ogee_runtime::{Buffer, now, sleep, spawn, yield_now};

const CREATE: OpenOptions = OpenOptions {
    create: true,
    dsync: false,
    read_only: false,
};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

#[test]
fn first_timer_of_a_process_is_not_late() {
    if is_child() {
        return assert!(block_on(is_first_nap_as_short_as_others()));
    }
    // Relative to the later ones, and the best of several processes: the machine may be busy.
    let program = std::env::current_exe().unwrap();
    let name = "first_timer_of_a_process_is_not_late";
    let is_prompt = (0..10).any(|_| child(&program, name).output().unwrap().status.success());
    assert!(is_prompt);
}

async fn is_first_nap_as_short_as_others() -> bool {
    let mut naps = Vec::new();
    for _ in 0..10 {
        let start = now();
        sleep(Duration::from_millis(1)).await;
        naps.push(now() - start);
    }
    let first = naps.remove(0);
    naps.sort();
    first < naps[naps.len() / 2] * 4
}

#[test]
fn iopoll_probe_on_an_empty_file_does_not_break_reads() {
    let directory = scratch();
    for name in ["empty", "sparse"] {
        // A new thread each, as the engine remembers the probe per thread.
        let path = directory.path().join(name);
        if name == "sparse" {
            std::fs::File::create(&path)
                .unwrap()
                .set_len(1 << 20)
                .unwrap();
        }
        let shard = ShardBuilder::new(name).start(move || async move {
            let file = DmaFile::open(&path, CREATE).await?;
            file.write_at(0, Buffer::copy_from(&[7; 4096])).await?;
            file.read_at(0, 4096).await.map(|data| data[0])
        });
        assert_eq!(shard.unwrap().join().unwrap().unwrap(), 7, "{name}");
    }
}

#[test]
fn wakers_are_not_counted_in_16_bits() {
    block_on(async {
        let task = spawn(async {
            let wakers = poll_fn(|cx| Poll::Ready(vec![cx.waker().clone(); 100_000])).await;
            yield_now().await;
            wakers.len()
        });
        assert_eq!(task.await, Ok(100_000));
        let wakers = poll_fn(|cx| Poll::Ready(vec![cx.waker().clone(); 100_000])).await;
        assert_eq!(wakers.len(), 100_000);
    });
}

/// Reads while `disturb` keeps the executor busy; how often it ran per read.
fn disturbed_reads<F: Future<Output = ()> + 'static>(disturb: impl Fn() -> F + 'static) -> u32 {
    const READS: u32 = 50;
    let directory = scratch();
    block_on(async {
        let file = DmaFile::open(directory.path().join("file"), CREATE)
            .await
            .expect("a file");
        file.write_at(0, Buffer::zeroed(4096))
            .await
            .expect("a write");
        let turns = Rc::new(Cell::new(0));
        let _busy = ogee_runtime::spawn_scoped({
            let turns = Rc::clone(&turns);
            async move {
                loop {
                    disturb().await;
                    turns.set(turns.get() + 1);
                }
            }
        });
        for _ in 0..READS {
            file.read_at(0, 4096).await.expect("a read");
        }
        assert!(turns.get() > 0, "the disturbance never ran");
        turns.get() / READS
    })
}

#[test]
fn always_runnable_task_that_yields_does_not_starve_reads() {
    // Starved, a read waits for the preemption timer: tens of thousands of turns.
    assert!(disturbed_reads(yield_now) < 2000);
}

#[test]
fn zero_length_sleeps_yield() {
    assert!(disturbed_reads(|| sleep(Duration::ZERO)) < 2000);
}

#[test]
fn created_files_are_readable() {
    let directory = scratch();
    block_on(async {
        let file = DmaFile::open(directory.path().join("new"), CREATE)
            .await
            .unwrap();
        file.write_at(0, Buffer::copy_from(&[1; 512]))
            .await
            .unwrap();
        assert_eq!(&*file.read_at(0, 512).await.unwrap(), [1; 512]);
    });
}

/// Set for the children of the tests below.
const CHILD: &str = "OGEE_TEST_CHILD";

/// This program again, to run only the test `name`, which finds `CHILD` set.
fn child(program: &Path, name: &str) -> Command {
    let mut child = Command::new(program);
    child.args(["--exact", name, "--nocapture"]).env(CHILD, "1");
    child
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

#[test]
fn executor_paused_before_its_first_task_does_not_forget_it() {
    if is_child() {
        return yield_forever();
    }
    let program = std::env::current_exe().unwrap();
    let name = "executor_paused_before_its_first_task_does_not_forget_it";
    let mut child = child(&program, name).spawn().unwrap();
    let pid = libc::pid_t::try_from(child.id()).unwrap();
    let shard = shard_thread(pid);
    let is_alive = (0..PAUSES).all(|_| {
        // Each pause outlasts the preemption timer; some of them hit the moment that matters.
        signal(pid, libc::SIGSTOP);
        std::thread::park_timeout(PAUSE);
        signal(pid, libc::SIGCONT);
        makes_progress(&shard)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(is_alive, "the executor slept with a task to run");
}

/// Outlasts a preemption timer of 20 ms, with which pauses were fatal.
const PAUSE: Duration = Duration::from_millis(25);

/// With such a timer about one pause in twenty is fatal.
const PAUSES: usize = 150;

/// The same for an executor that has just begun or is about to end.
#[test]
fn executor_paused_while_it_begins_or_ends_does_not_sleep_for_ever() {
    if is_child() {
        return (0..LIVES).for_each(|_| block_on(yield_now()));
    }
    let program = std::env::current_exe().unwrap();
    let name = "executor_paused_while_it_begins_or_ends_does_not_sleep_for_ever";
    let mut pauses = 0;
    let wanted = if std::env::var_os("OGEE_FULL").is_some() {
        PAUSES_OF_LIVES_FULL
    } else {
        PAUSES_OF_LIVES
    };
    while pauses < wanted {
        let mut child = child(&program, name).spawn().unwrap();
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            signal(pid, libc::SIGSTOP);
            std::thread::park_timeout(PAUSE);
            signal(pid, libc::SIGCONT);
            pauses += 1;
            // Nothing may disturb it now: another signal would wake it.
            let before = worked(pid);
            let is_alive = (0..2000).any(|_| {
                std::thread::park_timeout(Duration::from_millis(1));
                child.try_wait().unwrap().is_some() || worked(pid) >= before + ENOUGH
            });
            if !is_alive {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("an executor slept for ever, after {pauses} pauses");
            }
        };
        assert!(status.success());
    }
}

/// With such a timer about one pause in 200 is fatal: half of the runs of the slice find it, and nearly all full ones.
const PAUSES_OF_LIVES: usize = 150;
const PAUSES_OF_LIVES_FULL: usize = 600;

/// Executors of one child: each that is dropped leaks a descriptor.
const LIVES: usize = 200;

/// Time that the threads of a process have run, as far as they are still there.
fn worked(pid: libc::pid_t) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let times = tasks.map(|task| ran(&task.path()).unwrap_or_default());
    times.sum()
}

/// Name of the child's executor, and so of its thread.
const SHARD: &str = "watched";

fn yield_forever() {
    let shard = ShardBuilder::new(SHARD).start(|| async {
        loop {
            yield_now().await;
        }
    });
    let running: ShardHandle<()> = shard.expect("a shard");
    drop(running.join());
}

/// Directory of the child's executor thread, once it is there.
fn shard_thread(pid: libc::pid_t) -> PathBuf {
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the child's threads");
        let is_shard = |task: &PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == SHARD)
        };
        if let Some(task) = tasks.flatten().map(|task| task.path()).find(is_shard) {
            return task;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Whether the thread does some work before patience ends.
fn makes_progress(thread: &Path) -> bool {
    let worked = || ran(thread).expect("schedstat");
    let before = worked();
    (0..2000).any(|_| {
        std::thread::park_timeout(Duration::from_millis(1));
        worked() - before >= ENOUGH
    })
}

/// Work that shows a thread to be alive.
const ENOUGH: Duration = Duration::from_millis(1);

/// Time that a thread has run; none if it is gone.
fn ran(thread: &Path) -> Option<Duration> {
    let times = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    let nanos = times.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

fn signal(pid: libc::pid_t, number: libc::c_int) {
    // SAFETY: no memory is passed; the child is ours and not yet waited for, so the number is its.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0);
}

#[test]
fn three_executors_fit_into_the_memlock_limit_of_an_ordinary_user() {
    if is_child() {
        return start_three();
    }
    // Where an ordinary user can execute it, whatever the target directory allows.
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("child");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let mut child = Command::new(&program);
    child.args([
        "--exact",
        "three_executors_fit_into_the_memlock_limit_of_an_ordinary_user",
    ]);
    child.arg("--nocapture").env(CHILD, "1").current_dir("/");
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        child.uid(65_534).gid(65_534);
    }
    // SAFETY: between fork and exec it only calls setrlimit, which is async-signal-safe.
    unsafe { child.pre_exec(lower_memlock) };
    let output = child.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The engine knows, and its error says it; ours must not lose it on the way.
#[test]
fn an_executor_that_may_lock_no_memory_says_so() {
    if is_child() {
        let refused = ShardBuilder::new("refused")
            .start(async || {})
            .expect_err("little memory");
        assert!(refused.to_string().contains("RLIMIT_MEMLOCK"), "{refused}");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "an_executor_that_may_lock_no_memory_says_so"]);
    child.arg("--nocapture").env(CHILD, "1");
    // SAFETY: between fork and exec it only calls setrlimit, which is async-signal-safe.
    unsafe { child.pre_exec(|| set_memlock(MEMLOCK_MIN / 2)) };
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn lower_memlock() -> std::io::Result<()> {
    set_memlock(MEMLOCK_BUDGET)
}

fn set_memlock(bytes: usize) -> std::io::Result<()> {
    let budget = bytes as libc::rlim_t;
    let limit = libc::rlimit {
        rlim_cur: budget,
        rlim_max: budget,
    };
    // SAFETY: `limit` is ours and outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn start_three() {
    let barrier = Arc::new(std::sync::Barrier::new(EXECUTORS_PER_BUDGET + 1));
    let shards: Vec<_> = (0..EXECUTORS_PER_BUDGET)
        .map(|number| {
            let barrier = Arc::clone(&barrier);
            ShardBuilder::new(format!("shard-{number}"))
                .start(move || async move {
                    sleep(Duration::from_millis(1)).await;
                    barrier.wait();
                    barrier.wait();
                })
                .expect("a shard")
        })
        .collect();
    barrier.wait();
    let pinned = pinned_bytes();
    barrier.wait();
    for shard in shards {
        shard.join().expect("no panic");
    }
    // A refused registration is only a warning in the engine, so look at what is pinned.
    assert!(
        pinned >= EXECUTORS_PER_BUDGET * REGISTERED_MEMORY,
        "only {pinned} bytes registered"
    );
}

fn pinned_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmPin:"))
        .expect("VmPin");
    let kib = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .expect("a number");
    kib << 10
}
