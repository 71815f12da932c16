//! `ogee doctor`: whether this host has what Ogee needs.
//!
//! *Place*: beside the other commands; asks the kernel and the libraries, no cluster. *Owner*: the process.
//! *Invariants*: it changes nothing. What it says to run, it only prints. Each check says what was found, what
//! is needed, and how to get from one to the other.
//! *On failure*: what cannot be read is a finding like any other.
//!
//! | module | holds |
//! |---|---|
//! | `check` | a finding; names and verdicts |
//! | `tree` | files under a root: the kernel's, or a test's |
//! | `host` | io_uring, locked memory, descriptors |
//! | `nvme` | NVMe controllers, and what those in user space need |
//! | `rdma` | RDMA devices as the kernel shows them |
//! | `verbs` | RDMA as the libraries show it: device limits, a write to ourselves (feature `rdma`) |
//! | `limit` | what is needed |
//! | `print` | as a table, JSON or a script |

mod check;
mod host;
mod limit;
mod nvme;
mod print;
mod rdma;
mod tree;
#[cfg(feature = "rdma")]
mod verbs;
#[cfg(not(feature = "rdma"))]
#[path = "no_verbs.rs"]
mod verbs;

pub(crate) use check::CheckName;
pub(crate) use tree::Tree;
#[cfg(test)]
pub(crate) use tree::put;

use crate::args::{DoctorArgs, Format};
use crate::error::{CliError, Exit};
use check::{Finding, Verdict};
use std::process::ExitCode;

pub(crate) fn run(args: &DoctorArgs, format: Format) -> Result<ExitCode, CliError> {
    let tree = Tree::host();
    let mut findings = host::findings(&tree, &host::try_io_uring());
    findings.extend(rdma::findings(&tree, args.shards, args.rdma));
    findings.extend(nvme::findings(&tree, ogee_spdk::has_spdk()));
    // Opening a device takes time, and its driver may have something to say: only if it is asked.
    if is_wanted(args, &CheckName::OF_VERBS) {
        findings.extend(verbs::findings(&rdma::ports(&tree), args.shards, args.rdma));
    }
    findings.retain(|finding| is_wanted(args, &[finding.name]));
    if !args.rdma {
        findings = findings.into_iter().map(Finding::relaxed).collect();
    }
    match args.fix_script {
        true => print::script(&findings),
        false => print::findings(&findings, format),
    }
    Ok(exit_code(&findings))
}

fn is_wanted(args: &DoctorArgs, names: &[CheckName]) -> bool {
    args.check.is_empty() || args.check.iter().any(|name| names.contains(name))
}

fn exit_code(findings: &[Finding]) -> ExitCode {
    match check::worst(findings) {
        Verdict::Ok => ExitCode::SUCCESS,
        Verdict::Warning => ExitCode::from(Exit::Degraded as u8),
        Verdict::Failed => ExitCode::from(Exit::Failed as u8),
    }
}
