//! Starting, finding and ending the processes of a dev cluster.

use super::layout::{Layout, write};
use crate::error::{CliError, Exit};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bound on a process becoming ready: a chunkserver may zero-fill its log first.
const READY: Duration = Duration::from_secs(120);
/// Bound on a graceful end.
const GRACE: Duration = Duration::from_secs(20);
/// Bound on a killed process's threads ending: one may wait for its disk.
const DYING: Duration = Duration::from_secs(30);
/// How often things are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Starts a process and waits until it is ready. One that runs already is left alone.
pub(super) fn start(layout: &Layout, name: &str) -> Result<(), CliError> {
    let mut started = spawn(layout, name)?;
    if let Some(child) = &mut started {
        await_ready(layout, name, child)?;
    }
    Ok(())
}

/// Starts a process; `None` if it runs already.
pub(super) fn spawn(layout: &Layout, name: &str) -> Result<Option<Child>, CliError> {
    if !layout.conf(name).exists() {
        let what = format!("no process is called {name}");
        let names = layout.names().join(", ");
        let remedy = "use a name as in DIR/pids";
        let error = CliError::new("OGEE-3301", &what, &format!("there are: {names}"), remedy);
        return Err(error.with_exit(Exit::NotFound));
    }
    if running(layout, name).is_some() {
        return Ok(None);
    }
    await_death(layout, name)?;
    // A leftover of a process that was killed would count as ready.
    let _ = std::fs::remove_file(layout.ready(name));
    let failed = |error: std::io::Error| {
        CliError::io(
            &format!("cannot start {name}"),
            &error,
            "check the log directory",
        )
    };
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(layout.log(name));
    let log = log.map_err(failed)?;
    let errors = log.try_clone().map_err(failed)?;
    let kind = if name.starts_with("mds") {
        "mds"
    } else {
        "chunkserver"
    };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command
        .arg(kind)
        .arg("--config")
        .arg(layout.conf(name))
        .arg("--ready-file")
        .arg(layout.ready(name))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // A group of its own: a Ctrl-C meant for the caller does not reach it.
        .process_group(0);
    let child = command.spawn().map_err(failed)?;
    write(&layout.pid(name), &format!("{}\n", child.id()))?;
    Ok(Some(child))
}

/// Waits until a started process has made its ready file.
pub(super) fn await_ready(layout: &Layout, name: &str, child: &mut Child) -> Result<(), CliError> {
    let deadline = Instant::now() + READY;
    while !layout.ready(name).exists() {
        if let Ok(Some(status)) = child.try_wait() {
            let what = format!("{name} ended while starting ({status})");
            return Err(not_ready(&what, &layout.log(name)));
        }
        if Instant::now() > deadline {
            return Err(not_ready(
                &format!("{name} is not ready after {READY:?}"),
                &layout.log(name),
            ));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn not_ready(what: &str, log: &Path) -> CliError {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let tail: Vec<&str> = text.lines().rev().take(4).collect();
    let cause: Vec<&str> = tail.into_iter().rev().map(str::trim).collect();
    CliError::new(
        "OGEE-3302",
        what,
        &cause.join(" / "),
        &format!("see {}", log.display()),
    )
}

/// Waits until a process that was killed holds nothing any more. What it has open, its ports and its
/// devices' locks too, goes with the last of its threads, some time after its memory and command line.
fn await_death(layout: &Layout, name: &str) -> Result<(), CliError> {
    let Some(pid) = recorded_pid(layout, name) else {
        return Ok(());
    };
    let deadline = Instant::now() + DYING;
    while is_dying(pid) {
        if Instant::now() > deadline {
            let what = format!("{name} was killed, but has not ended in {DYING:?} (pid {pid})");
            let cause =
                "one of its threads waits in the kernel, as for a disk that does not answer";
            let remedy = "look at /proc/PID/task/*/stack, and start it again when it is gone";
            return Err(CliError::new("OGEE-3305", &what, cause, remedy));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Has lost its memory, but not yet its last thread. A zombie that nobody reaps holds nothing.
fn is_dying(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name).map(str::trim))
    };
    // One that has memory is another process; so is a kernel thread, which never had any.
    if field("VmSize:").is_some() || field("PPid:") == Some("2") {
        return false;
    }
    let is_zombie = field("State:").is_some_and(|state| state.starts_with('Z'));
    !(is_zombie && field("Threads:") == Some("1"))
}

fn recorded_pid(layout: &Layout, name: &str) -> Option<i32> {
    let text = std::fs::read_to_string(layout.pid(name)).ok()?;
    text.trim().parse().ok()
}

/// The pid of a process, if it runs and is this cluster's.
pub(super) fn running(layout: &Layout, name: &str) -> Option<Pid> {
    let pid = recorded_pid(layout, name)?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let conf = layout.conf(name);
    let ours = command
        .split(|byte| *byte == 0)
        .any(|arg| arg == conf.as_os_str().as_encoded_bytes());
    let zombie = std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" Z"))
    });
    (ours && !zombie).then(|| Pid::from_raw(pid))
}

/// Ends every process of the cluster: chunkservers first, so that they can hand over and report.
pub(super) fn down(layout: &Layout) -> Result<(), CliError> {
    let mut names = layout.names();
    names.reverse();
    for name in &names {
        if let Some(pid) = running(layout, name) {
            signal(name, pid, Signal::SIGTERM)?;
        }
    }
    let deadline = Instant::now() + GRACE;
    for name in &names {
        while let Some(pid) = running(layout, name) {
            if Instant::now() > deadline {
                eprintln!("{name} did not end in {GRACE:?}: killing it");
                signal(name, pid, Signal::SIGKILL)?;
            }
            std::thread::sleep(LOOK);
        }
        let _ = std::fs::remove_file(layout.pid(name));
        let _ = std::fs::remove_file(layout.ready(name));
    }
    Ok(())
}

/// Kills a process without warning; one that does not run is left alone.
pub(super) fn kill_one(layout: &Layout, name: &str) -> Result<(), CliError> {
    match running(layout, name) {
        Some(pid) => signal(name, pid, Signal::SIGKILL),
        None => Ok(()),
    }
}

fn signal(name: &str, pid: Pid, signal: Signal) -> Result<(), CliError> {
    match kill(pid, signal) {
        // It ended by itself in between.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => {
            let doing = format!("cannot end {name} (pid {pid})");
            let remedy = "run ogee dev down as the user who ran ogee dev up";
            Err(CliError::io(&doing, &std::io::Error::from(error), remedy))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its first thread is a zombie while another one still holds the port.
    const LEAVES_A_THREAD: &str = "
import ctypes, socket, threading, time
held = socket.socket()
held.bind(('127.0.0.1', 0))
print(held.getsockname()[1], flush=True)
threading.Thread(target=time.sleep, args=(1,)).start()
ctypes.CDLL(None).pthread_exit(None)
";

    #[test]
    fn a_process_is_dying_until_its_last_thread_is_gone() {
        let python = Command::new("python3")
            .args(["-c", LEAVES_A_THREAD])
            .stdout(Stdio::piped())
            .spawn();
        let mut child = python.expect("python3 runs");
        let pid = i32::try_from(child.id()).expect("a pid");
        let mut port = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        std::io::BufRead::read_line(&mut output, &mut port).expect("a line");
        let address = format!("127.0.0.1:{}", port.trim());
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut was_dying = false;
        while is_dying(pid) || !was_dying {
            assert!(
                Instant::now() < deadline,
                "{}",
                std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
            );
            was_dying |= is_dying(pid);
            std::thread::sleep(Duration::from_millis(5));
        }
        // Nobody has reaped it, and what it held is free.
        std::net::TcpListener::bind(address).expect("the port is free");
        assert!(!is_dying(pid));
        child.wait().expect("it is ours");
    }

    #[test]
    fn what_runs_or_never_was_is_not_dying() {
        assert!(!is_dying(i32::try_from(std::process::id()).unwrap()));
        assert!(!is_dying(1 << 30));
    }
}
