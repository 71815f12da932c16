//! Arguments of the commands on copysets.

use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub(crate) enum CopysetCommand {
    /// List copysets and their leaders.
    Ls,
    /// Compare the replicas' contents at one log index. Exit code 1 on a difference.
    Check {
        /// Only this one.
        id: Option<u32>,
    },
    /// Show a copyset's replicas: what each is, how it is, and how far it has come.
    Show {
        /// The copyset.
        id: u32,
    },
    /// Put a new replica in the place of a lost, damaged or moved one. Returns when that is under way;
    /// `show` tells how far it is.
    Replace {
        /// The copyset.
        id: u32,
        /// The replica whose place is taken, as `show` names it.
        #[arg(long)]
        replica: u64,
        /// Chunkserver, or store of one, that shall hold the new replica.
        #[arg(long)]
        to: String,
    },
    /// Even out how many copysets each chunkserver leads, and what is asked of those, as far as replicas allow. Waits
    /// until it is done.
    BalanceLeaders {
        /// At once, whatever was moved lately.
        #[arg(long, required = true)]
        now: bool,
        /// Only show which leaders would move, and why.
        #[arg(long)]
        dry_run: bool,
    },
    /// Even out how many replicas each device carries for its capacity, as far as zones allow. Returns when
    /// the moves are planned; `job ls` tells how far they are.
    BalanceReplicas {
        /// At once, whatever was moved lately.
        #[arg(long, required = true)]
        now: bool,
        /// Only show which replicas would move, and about how many bytes.
        #[arg(long)]
        dry_run: bool,
    },
    /// Go on with one replica of a copyset that has lost its majority for good; new ones are made from it. What only the
    /// lost replicas had, acknowledged writes among it, is gone. Refused while a majority could answer.
    Reset {
        /// The copyset.
        id: u32,
        /// Chunkserver, or store of one, whose replica goes on; without it the one that is furthest.
        #[arg(
            long,
            value_name = "CHUNKSERVER|STORE",
            default_value = "",
            hide_default_value = true
        )]
        from: String,
        /// Only tell what would be lost.
        #[arg(long)]
        dry_run: bool,
        /// Do it without asking.
        #[arg(long, conflicts_with = "dry_run")]
        yes: bool,
    },
    /// Hand the leadership of a copyset over.
    TransferLeader {
        /// The copyset.
        id: u32,
        /// Chunkserver that shall lead.
        #[arg(long)]
        to: String,
    },
}
