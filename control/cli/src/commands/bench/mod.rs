//! `ogee bench`.

mod ab;
mod compare;
mod cost;
mod curves;
mod events;
mod load;
mod targets;
mod watch;

use crate::args::{BenchArgs, BenchCommand, Format};
use crate::error::CliError;
use std::process::ExitCode;

pub(super) use targets::{check_transport, host_name, not_attached, open, open_through};

pub(crate) fn run(mds: &[String], args: &BenchArgs, format: Format) -> Result<ExitCode, CliError> {
    match &args.what {
        None => load::run(mds, &args.load, format),
        Some(BenchCommand::Compare(args)) => compare::compare(args, format),
        Some(BenchCommand::Ab(args)) => ab::run(mds, args, format),
        Some(BenchCommand::Report(args)) => compare::report(args),
        Some(BenchCommand::Curves(args)) => curves::run(args),
        Some(BenchCommand::Scenarios) => load::scenarios(format),
    }
}
