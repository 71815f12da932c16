//! Arguments of the commands that look after the metadata servers and watch the cluster.

use super::DaemonArgs;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct MdsArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(subcommand)]
    pub(crate) what: Option<MdsCommand>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum MdsCommand {
    /// List the metadata servers: who leads, and how far each is.
    Ls,
    /// Show one of them.
    Show {
        /// Its number.
        id: u64,
    },
    /// Compare what the metadata servers hold: all must have the same as of the same log entry. Exit code 1 if not.
    Check,
    /// Take a metadata server into the group that was started with `join = true`. It learns first, and votes
    /// when it has caught up; waits for that.
    Add {
        /// Its number, as in its configuration.
        id: u64,
        /// Its gRPC address, as the others and the clients reach it.
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
    },
    /// Take a metadata server out of the group. The leading one hands over first. Stop it afterwards.
    Rm {
        /// Its number.
        id: u64,
    },
    /// Whether the metadata can still be changed when that one stops: a majority must answer without it. Exit code 1
    /// if not.
    OkToStop {
        /// Its number.
        id: u64,
    },
    /// Have another metadata server lead.
    TransferLeader {
        /// Its number; without one the one that is furthest.
        id: Option<u64>,
    },
    /// Write the metadata to a file; or check such a file.
    Backup(BackupArgs),
    /// Make a new group of one metadata server from a backup, in an empty data directory.
    Restore(RestoreArgs),
    /// List what chunkservers hold that restored metadata does not know.
    Strangers,
    /// Free the data of a volume that restored metadata does not know.
    Discard {
        /// The volume's number, as `strangers` names it.
        volume: u64,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Say that restored metadata is as it should be: replicas are made, moved and deleted again.
    AcceptRestore {
        /// Also if chunkservers have not reported what they hold: they are gone for good.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// The file.
    pub(crate) file: PathBuf,
    /// Do not make it: read it, check every byte, and print what is in it.
    #[arg(long, conflicts_with = "force")]
    pub(crate) check: bool,
    /// Write over a file that exists.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup.
    pub(crate) file: PathBuf,
    /// Data directory of the metadata server: missing or empty.
    #[arg(long)]
    pub(crate) data_dir: PathBuf,
    /// Its number, as in its configuration.
    #[arg(long, default_value_t = 1)]
    pub(crate) id: u64,
    /// Its gRPC address, as clients and chunkservers reach it.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: String,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Print it again, every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    /// Go on, until interrupted; with -o json one object a line.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those after this one: a sequence number, or a time ago such as 90s, 15m, 2h, 1d.
    #[arg(long)]
    pub(crate) since: Option<String>,
}
