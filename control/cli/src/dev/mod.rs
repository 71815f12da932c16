//! `ogee dev`: a cluster on this machine, as any user, in seconds.
//!
//! *Place*: beside the daemons' commands, which it starts as processes of this same binary.
//! *Owner*: a directory: `conf/NAME.toml`, `data/`, `logs/NAME.log`, `pids/NAME.pid`, `ogee.env`.
//! *Invariants*: only processes that this directory started are ever signalled: a pid counts only
//! while its command line names this directory's configuration.
//! *On failure*: what was started is left running for a look; `dev down` ends it.

mod layout;
mod process;
mod up;

use crate::args::{DevCommand, Format};
use crate::error::CliError;
use layout::Layout;
use std::process::ExitCode;

pub(crate) fn run(what: DevCommand, _format: Format) -> Result<ExitCode, CliError> {
    match what {
        DevCommand::Up(args) => up::up(&args)?,
        DevCommand::Down { dir } => process::down(&Layout::open(&dir)?)?,
        DevCommand::Start { name, dir } => process::start(&Layout::open(&dir)?, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}
