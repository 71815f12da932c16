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

/// The pid of a process, if it runs and is this cluster's.
pub(super) fn running(layout: &Layout, name: &str) -> Option<Pid> {
    let text = std::fs::read_to_string(layout.pid(name)).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
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
