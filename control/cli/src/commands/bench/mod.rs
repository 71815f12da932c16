//! `ogee bench`.

mod events;
mod load;
mod targets;
mod watch;

use crate::args::{BenchArgs, Format};
use crate::error::CliError;
use std::process::ExitCode;

pub(super) use targets::open;

pub(crate) fn run(mds: &[String], args: &BenchArgs, format: Format) -> Result<ExitCode, CliError> {
    load::run(mds, &args.load, format)
}
