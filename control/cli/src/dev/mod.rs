//! `ogee dev`: a cluster on this machine, as any user, in seconds.
//!
//! *Place*: beside the daemons' commands, which it starts as processes of this same binary.
//! *Owner*: a directory: `conf/NAME.toml`, `data/`, `logs/NAME.log`, `pids/NAME.pid`, `ogee.env`.
//! *Invariants*: only processes that this directory started are ever signalled: a pid counts only
//! while its command line names this directory's configuration.
//! *On failure*: what was started is left running for a look; `dev down` ends it.

mod layout;
mod pool;
mod process;
mod up;

use crate::args::{DevCommand, Format};
use crate::error::CliError;
use layout::Layout;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(what: DevCommand, _format: Format) -> Result<ExitCode, CliError> {
    match what {
        DevCommand::Up(args) => up::up(&args)?,
        DevCommand::Down { dir } => process::down(&Layout::open(&dir)?)?,
        DevCommand::Start { name, dir } => process::start(&Layout::open(&dir)?, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The processes of a cluster that run now. None of a directory that is no cluster's.
pub(crate) fn processes(dir: &Path) -> Vec<(u32, String)> {
    let Ok(layout) = Layout::open(dir) else {
        return Vec::new();
    };
    let names = layout.names().into_iter();
    names
        .filter_map(|name| {
            let pid = process::running(&layout, &name)?;
            Some((u32::try_from(pid.as_raw()).ok()?, name))
        })
        .collect()
}

/// Where the chunkservers of a cluster tell their metrics.
pub(crate) fn metrics(dir: &Path) -> Vec<SocketAddr> {
    let Ok(layout) = Layout::open(dir) else {
        return Vec::new();
    };
    let names = layout
        .names()
        .into_iter()
        .filter(|name| name.starts_with("cs"));
    let address = |name: String| {
        let text = std::fs::read_to_string(layout.conf(&name)).ok()?;
        let conf: toml::Table = text.parse().ok()?;
        conf.get("metrics")?.as_str()?.parse().ok()
    };
    names.filter_map(address).collect()
}

/// Kills a process of a cluster.
pub(crate) fn kill(dir: &Path, name: &str) -> Result<(), CliError> {
    process::kill_one(&Layout::open(dir)?, name)
}

/// Starts a process of a cluster; returns when it is ready.
pub(crate) fn start(dir: &Path, name: &str) -> Result<(), CliError> {
    process::start(&Layout::open(dir)?, name)
}
