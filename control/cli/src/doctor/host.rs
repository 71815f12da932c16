//! What every process of the data plane needs of a host.
//!
//! *Place*: generic checks of `ogee doctor`. *Owner*: plain values. *Invariants*: only what a process fails
//! without, or soon would, is checked. *On failure*: a finding.

use super::check::{CheckName, Finding, Fix, Verdict};
use super::limit::{KERNEL_MIN, MEMLOCK_EXECUTORS, MEMLOCK_MIN, MEMLOCK_WANTED, OPEN_FILES_MIN};
use super::tree::{CAP_IPC_LOCK, Tree};
use crate::output::human;
use ogee_runtime::executor::ShardBuilder;

/// As `/proc/self/limits` calls it.
const MEMLOCK_LIMIT: &str = "Max locked memory";

/// Starts an executor, and ends it: what a daemon does first.
pub(crate) fn try_io_uring() -> Result<(), String> {
    let started = ShardBuilder::new("doctor").start(|| async {});
    let shard = started.map_err(|error| error.to_string())?;
    shard.join().map_err(|error| error.to_string())
}

/// All findings; `io_uring` is what became of [`try_io_uring`].
pub(crate) fn findings(tree: &Tree, io_uring: &Result<(), String>) -> Vec<Finding> {
    vec![
        kernel(tree),
        check_io_uring(tree, io_uring),
        memlock(tree),
        open_files(tree),
    ]
}

fn kernel(tree: &Tree) -> Finding {
    let found = tree.read("proc/sys/kernel/osrelease");
    let version = found.as_deref().and_then(version);
    let (major, minor) = KERNEL_MIN;
    let finding = Finding::ok(
        CheckName::Kernel,
        found.unwrap_or_else(|| "no version can be read".into()),
        format!("{major}.{minor} or later"),
    );
    match version {
        Some(version) if version >= KERNEL_MIN => finding,
        _ => finding.but(Verdict::Failed, Fix::new("boot a newer kernel")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn check_io_uring(tree: &Tree, tried: &Result<(), String>) -> Finding {
    let name = CheckName::IoUring;
    let needed = "an executor starts";
    let why = match tried {
        Ok(()) => return Finding::ok(name, "an executor starts", needed),
        Err(why) => why,
    };
    let disabled = tree.read("proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.filter(|value| value != "0");
    let fix = match &disabled {
        Some(_) => Fix::new("allow io_uring to all users, or to a group by kernel.io_uring_group")
            .by(&[
                "sysctl -w kernel.io_uring_disabled=0",
                "echo kernel.io_uring_disabled=0 >/etc/sysctl.d/60-ogee.conf",
            ]),
        None => Fix::new(
            "in a container, allow the system calls io_uring_setup, io_uring_enter and \
             io_uring_register in its seccomp profile; else do what the message says",
        ),
    };
    let setting = disabled.map_or_else(String::new, |value| {
        format!("; kernel.io_uring_disabled is {value}")
    });
    Finding::ok(name, format!("{why}{setting}"), needed).but(Verdict::Failed, fix)
}

fn memlock(tree: &Tree) -> Finding {
    let (wanted, least) = (human(MEMLOCK_WANTED), human(MEMLOCK_MIN));
    let needed = format!("{wanted} for {MEMLOCK_EXECUTORS} executors");
    // The engine looks at the limit, not at whom it binds.
    let limit = tree.limit(MEMLOCK_LIMIT).unwrap_or(0);
    if limit < MEMLOCK_MIN {
        let found = format!(
            "a limit of {}, below the {least} that executors want of anybody",
            human(limit)
        );
        let finding = Finding::ok(CheckName::Memlock, found, needed);
        return finding.but(Verdict::Failed, raise_memlock(&wanted));
    }
    let (found, is_enough) = locked(tree, MEMLOCK_WANTED);
    let finding = Finding::ok(CheckName::Memlock, found, needed);
    match is_enough {
        true => finding,
        false => finding.but(Verdict::Failed, raise_memlock(&wanted)),
    }
}

/// The limit of locked memory in words, and whether `needed` fits.
pub(crate) fn locked(tree: &Tree, needed: u64) -> (String, bool) {
    if tree.is_capable(CAP_IPC_LOCK) {
        return ("no limit (CAP_IPC_LOCK)".into(), true);
    }
    match tree.limit(MEMLOCK_LIMIT) {
        Some(u64::MAX) => ("no limit".into(), true),
        Some(limit) => (human(limit), limit >= needed),
        None => ("no limit can be read".into(), false),
    }
}

pub(crate) fn raise_memlock(needed: &str) -> Fix {
    let text = format!(
        "allow {needed} or more: LimitMEMLOCK=infinity of the service, or for logins the limits below"
    );
    Fix::new(text).by(&[
        "printf '* - memlock unlimited\\n' >/etc/security/limits.d/60-ogee.conf   # then log in again",
    ])
}

fn open_files(tree: &Tree) -> Finding {
    let limit = tree.limit("Max open files");
    let found = limit.map_or_else(|| "no limit can be read".into(), |limit| limit.to_string());
    let finding = Finding::ok(CheckName::OpenFiles, found, OPEN_FILES_MIN.to_string());
    if limit.is_some_and(|limit| limit >= OPEN_FILES_MIN) {
        return finding;
    }
    let text = "LimitNOFILE=65536 of the service, or for logins the limits below";
    let commands =
        ["printf '* - nofile 65536\\n' >/etc/security/limits.d/61-ogee.conf   # then log in again"];
    finding.but(Verdict::Warning, Fix::new(text).by(&commands))
}

#[cfg(test)]
mod tests {
    use super::{CheckName, Tree, Verdict, findings};
    use crate::doctor::check::Finding;
    use crate::doctor::tree::put;

    fn limits(locked: &str, files: &str) -> String {
        format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            {files}                 65536                files     \n\
             Max locked memory         {locked}              {locked}              bytes     \n"
        )
    }

    fn of(findings: &[Finding], name: CheckName) -> &Finding {
        let mut those = findings.iter().filter(|finding| finding.name == name);
        those.next().expect("there is one")
    }

    #[test]
    fn a_host_with_all_of_it_is_fine() {
        let root = tempfile::tempdir().expect("a folder");
        put(root.path(), "proc/sys/kernel/osrelease", "6.1.0-28-amd64\n");
        put(root.path(), "proc/self/limits", &limits("8388608", "1024"));
        put(
            root.path(),
            "proc/self/status",
            "CapEff:\t0000000000000000\n",
        );
        let found = findings(&Tree::at(root.path()), &Ok(()));
        assert!(
            found.iter().all(|finding| finding.verdict == Verdict::Ok),
            "{found:?}"
        );
    }

    #[test]
    fn each_lack_is_found_with_its_fix() {
        let root = tempfile::tempdir().expect("a folder");
        put(root.path(), "proc/sys/kernel/osrelease", "5.7.19\n");
        put(root.path(), "proc/sys/kernel/io_uring_disabled", "2\n");
        put(root.path(), "proc/self/limits", &limits("65536", "256"));
        let tried = Err("io_uring is forbidden here".to_owned());
        let found = findings(&Tree::at(root.path()), &tried);
        for (name, verdict, fix) in [
            (CheckName::Kernel, Verdict::Failed, "newer kernel"),
            (CheckName::IoUring, Verdict::Failed, "kernel.io_uring_group"),
            (CheckName::Memlock, Verdict::Failed, "LimitMEMLOCK"),
            (CheckName::OpenFiles, Verdict::Warning, "LimitNOFILE"),
        ] {
            let finding = of(&found, name);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            let text = finding.fix.as_ref().map(|fix| fix.text.as_str());
            assert!(text.is_some_and(|text| text.contains(fix)), "{finding:?}");
        }
        assert!(of(&found, CheckName::Memlock).found.contains("64 KiB"));
        assert!(
            of(&found, CheckName::IoUring)
                .found
                .contains("disabled is 2")
        );
        // Who may lock without a limit needs little of one, but that.
        put(
            root.path(),
            "proc/self/status",
            "CapEff:\t0000000000004000\n",
        );
        for (limit, verdict) in [("65536", Verdict::Failed), ("524288", Verdict::Ok)] {
            put(root.path(), "proc/self/limits", &limits(limit, "1024"));
            let found = findings(&Tree::at(root.path()), &tried);
            assert_eq!(of(&found, CheckName::Memlock).verdict, verdict, "{limit}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_a_finding() {
        let root = tempfile::tempdir().expect("a folder");
        let found = findings(&Tree::at(root.path()), &Err("denied".into()));
        assert!(
            found.iter().all(|finding| finding.verdict != Verdict::Ok),
            "{found:?}"
        );
        // Not the sysctl, then: the sandbox around it.
        let fix = of(&found, CheckName::IoUring).fix.as_ref();
        assert!(fix.is_some_and(|fix| fix.text.contains("seccomp")));
    }
}
