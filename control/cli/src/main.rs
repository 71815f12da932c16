//! The `ogee` binary: daemons, frontends, and the operator's tool.
//!
//! *Place*: on top of everything; imported by nothing.
//! *Owner*: the process. Daemon commands run in the foreground; results go to stdout, progress and
//! logs to stderr.
//! *Invariants*: the forms of commands, JSON and exit codes are a contract: they are added to, not
//! changed.
//! *On failure*: one error with code, cause and remedy; exit codes are in docs/cli.md.

mod args;
mod commands;
mod dev;
mod doctor;
mod drive;
mod error;
mod media;
mod memory;
mod output;
mod settings;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use error::CliError;
use std::io::IsTerminal;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    memory::keep_freed();
    let cli = Cli::parse();
    start_logging();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit() as u8)
        }
    }
}

fn start_logging() {
    let filter = EnvFilter::try_from_env("OGEE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=warn,h2=warn,tower=warn,hyper=warn"));
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(!plain)
        .init();
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    let Cli {
        mds,
        output,
        command,
    } = cli;
    match command {
        Command::Dev { what } => dev::run(what, output),
        Command::Mds(args) => match args.what {
            None => commands::mds::run(&args.daemon),
            Some(what) => commands::members::run(&mds, what, output),
        },
        Command::Chunkserver(args) => commands::chunkserver::run(&args),
        Command::Export { what } => commands::export::run(&mds, what),
        Command::Attach(args) => commands::attach::run(&mds, args, output),
        Command::Bench(args) => commands::bench::run(&mds, &args, output),
        Command::Volume { what } => commands::volume::run(&mds, what, output),
        Command::Dir { what } => commands::dir::run(&mds, what, output),
        Command::Quota { what } => commands::quota::run(&mds, what, output),
        Command::Pool { what } => commands::topology::pool(&mds, what, output),
        Command::Zone { what } => commands::place::zone(&mds, what, output),
        Command::Server { what } => commands::place::server(&mds, what, output),
        Command::Device { what } => commands::place::device(&mds, what, output),
        Command::Job { what } => commands::job::run(&mds, what, output),
        Command::Copyset { what } => commands::copyset::run(&mds, what, output),
        Command::Status(args) => commands::status::run(&mds, &args, output),
        Command::Events(args) => commands::events::run(&mds, &args, output),
        Command::Explain { code } => commands::explain::run(code.as_deref(), output),
        Command::Doctor(args) => doctor::run(&args, output),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "ogee", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
