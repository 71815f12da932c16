//! Leaders of three metadata servers are killed and stopped, one after the other, while clients make, change, rename
//! and remove volumes and directories: no acknowledged change is lost, all members hold the same, and what clients were told is what
//! one metadata server could have told them.
//!
//! Real processes, the production client. 10 rounds; 100 with `OGEE_FULL=1`. `SEED=N` repeats the choices.

#![allow(clippy::unwrap_used, reason = "test code outside test functions")]

mod history;
mod history_tests;
mod load;
mod namespace;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use history::{Ask, Histories, Operation, Place, contradiction};
use load::Load;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ogee_client::MdsClient;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Clients at the same time.
const CLIENTS: u64 = 4;
/// Requests that are answered before each leader dies, whatever the machine's pace.
const ANSWERED_MIN: usize = 60;
/// Long enough for any loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of `ogee dev up`; ends with the test.
struct Cluster {
    dir: PathBuf,
    stopped: Option<Pid>,
}

impl Cluster {
    fn up(dir: PathBuf) -> Self {
        let cluster = Self { dir, stopped: None };
        let sizes = ["--store-size", "1GiB", "--log-size", "128MiB"];
        let counts = ["--nodes", "1", "--mds-nodes", "3", "--copysets", "4"];
        let up = cluster.ogee(&["dev", "up"], &[&sizes[..], &counts[..]].concat());
        assert!(
            up.status.success(),
            "{}",
            String::from_utf8_lossy(&up.stderr)
        );
        cluster
    }

    fn ogee(&self, command: &[&str], more: &[&str]) -> Output {
        let mut ogee = Command::new(env!("CARGO_BIN_EXE_ogee"));
        ogee.args(command).arg("--dir").arg(&self.dir).args(more);
        ogee.output().expect("ogee runs")
    }

    fn mds(&self) -> Vec<String> {
        let env = std::fs::read_to_string(self.dir.join("ogee.env")).unwrap();
        let names = env.trim().strip_prefix("export OGEE_MDS=").unwrap();
        names.split(',').map(str::to_owned).collect()
    }

    fn pid(&self, member: u64) -> Pid {
        let file = self.dir.join(format!("pids/mds{member}.pid"));
        let pid = std::fs::read_to_string(file).unwrap();
        Pid::from_raw(pid.trim().parse().unwrap())
    }

    fn start(&self, member: u64) {
        let name = format!("mds{member}");
        let started = self.ogee(&["dev", "start", &name], &[]);
        let why = String::from_utf8_lossy(&started.stderr);
        assert!(started.status.success(), "{name}: {why}");
    }

    /// As an operator asks whether they agree.
    fn check(&self) {
        let mut ogee = Command::new(env!("CARGO_BIN_EXE_ogee"));
        ogee.args(["mds", "check", "-o", "json"]);
        let checked = ogee.env("OGEE_MDS", self.mds().join(","));
        let checked = checked.output().expect("ogee runs");
        let said = String::from_utf8_lossy(&checked.stdout);
        let why = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{said} {why}");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["agree"], true, "{said}");
        assert_eq!(said["members"].as_array().unwrap().len(), 3, "{said}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(pid) = self.stopped {
            kill(pid, Signal::SIGCONT).ok();
        }
        let down = self.ogee(&["dev", "down"], &[]);
        if std::thread::panicking() {
            print_logs(&self.dir);
        }
        eprint!("{}", String::from_utf8_lossy(&down.stderr));
    }
}

fn print_logs(dir: &Path) {
    for name in ["mds1", "mds2", "mds3", "cs1"] {
        let log = std::fs::read_to_string(dir.join(format!("logs/{name}.log")));
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("---- {name}");
        for line in &lines[lines.len().saturating_sub(15)..] {
            println!("{}", line.chars().take(200).collect::<String>());
        }
    }
}

/// Who leads, other than that one.
async fn leader(client: &MdsClient, other_than: u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leader = client.status().await.map(|status| status.mds_leader);
        if let Some(id) = leader.ok().filter(|id| ![0, other_than].contains(id)) {
            return id;
        }
        assert!(Instant::now() < deadline, "nobody leads");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One leader is killed, or stopped until another one has led for a while.
async fn disturb(cluster: &mut Cluster, client: &MdsClient, random: &mut SmallRng, is_kill: bool) {
    let victim = leader(client, 0).await;
    let pid = cluster.pid(victim);
    if is_kill {
        kill(pid, Signal::SIGKILL).unwrap();
        leader(client, victim).await;
        cluster.start(victim);
        return;
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    cluster.stopped = Some(pid);
    leader(client, victim).await;
    sleep_ms(random.random_range(0..1000)).await;
    kill(pid, Signal::SIGCONT).unwrap();
    cluster.stopped = None;
}

async fn sleep_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// What is there in the end is part of the history: an acknowledged change that is lost contradicts it.
async fn read_back(load: &Load, client: &MdsClient) {
    for group in load.histories().into_keys() {
        for place in Place::all() {
            let ask = match place {
                Place::Volume(_) => Ask::Show,
                Place::Directory(_) => Ask::List,
            };
            load.ask(client, group, place, ask).await;
        }
    }
}

/// Returns when clients have been answered so often.
async fn await_load(load: &Load, answered: usize) {
    let deadline = Instant::now() + PATIENCE;
    while load.answered() < answered {
        assert!(Instant::now() < deadline, "clients are not answered");
        sleep_ms(20).await;
    }
}

type Kind = fn(&Ask) -> bool;

/// What must have been done, each at least once for so many leaders.
const KINDS: [(&str, Kind, u64); 7] = [
    ("create", |ask| matches!(ask, Ask::Create { .. }), 1),
    ("resize", |ask| matches!(ask, Ask::Resize { .. }), 1),
    ("attach", |ask| matches!(ask, Ask::Attach), 1),
    ("remove", |ask| matches!(ask, Ask::Remove), 2),
    ("rename", |ask| matches!(ask, Ask::Rename { .. }), 2),
    ("make a directory", |ask| *ask == Ask::MakeDirectory, 2),
    (
        "move one",
        |ask| matches!(ask, Ask::MoveDirectory { .. }),
        5,
    ),
];

fn judge(histories: &Histories) {
    let mut ids = std::collections::BTreeMap::new();
    for (group, operations) in histories {
        for operation in operations {
            if let history::Answer::Volume(seen) = operation.answer {
                let other = ids.insert(seen.id, group).filter(|other| *other != group);
                assert_eq!(other, None, "volume {} is in two groups: {group}", seen.id);
            }
        }
        if let Some(part) = contradiction(operations) {
            let lines: Vec<String> = part.iter().map(ToString::to_string).collect();
            panic!(
                "group {group}: no order explains this\n{}",
                lines.join("\n")
            );
        }
    }
}

/// A test of nothing passes, too.
fn check_load(histories: &Histories, leaders: u64) {
    let all = || histories.values().flatten();
    let done = |is_it: Kind| {
        let done = |it: &&Operation| is_it(&it.ask) && it.was_carried_out();
        all().filter(done).count() as u64
    };
    for (what, is_it, leaders_per_one) in KINDS {
        let done = done(is_it);
        println!("{what}: {done} times");
        let needed = leaders / leaders_per_one;
        assert!(done >= needed, "hardly any load: {what} {done} times");
    }
}

#[tokio::test]
async fn leaders_die_and_nothing_is_lost() {
    let full = std::env::var("OGEE_FULL").is_ok_and(|full| full == "1");
    let rounds: u64 = if full { 100 } else { 10 };
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("SEED={seed} repeats the choices");
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::up(dir.path().join("cluster"));
    let load = Load::new(cluster.mds());
    let clients = (0..CLIENTS).map(|at| Arc::clone(&load).run(seed.wrapping_add(at)));
    let clients: Vec<_> = clients.map(tokio::spawn).collect();
    let operator = load.operator();
    let mut random = SmallRng::seed_from_u64(seed);
    for round in 1..=rounds {
        let is_kill = round % 3 != 0;
        await_load(&load, load.answered() + ANSWERED_MIN).await;
        sleep_ms(random.random_range(100..600)).await;
        disturb(&mut cluster, &operator, &mut random, is_kill).await;
        sleep_ms(random.random_range(0..150)).await;
        let pause = load.pause().await;
        cluster.check();
        load.next_group();
        drop(pause);
    }
    load.end();
    for client in clients {
        client.await.expect("no client saw what it should not");
    }
    read_back(&load, &operator).await;
    cluster.check();
    let histories = load.histories();
    let all = || histories.values().flatten();
    let unknown = all().filter(|it| it.answered_us.is_none()).count();
    println!(
        "{rounds} leaders killed or stopped: {} requests on {} groups of names, {unknown} of unknown outcome, nobody answered for at most {:?}",
        all().count(),
        histories.len(),
        load.longest_gap(),
    );
    judge(&histories);
    check_load(&histories, rounds);
}
