//! Mistakes on purpose, for the simulator to find.
//!
//! **Place.** A hook, [`seeded_bug!`](crate::seeded_bug), stands wherever the production code would be
//! wrong in one of the ways that `docs/reliability.md` lists: it asks whether this process is to be wrong
//! there.
//!
//! **Owner.** The process: `OGEE_SIM_BUG` names one of [`BUGS`], and is read once.
//!
//! **Invariants.** Outside of the simulator (`--cfg ogee_sim`) a hook is the constant `false`, of which
//! nothing is left in the program. A hook with a name that is not listed does not compile; a test
//! compares the list with the hooks in the sources and with the document.
//!
//! **Failure.** An unknown name in the environment ends the process: a run that was to prove something
//! must not quietly prove nothing.

/// Every bug, by layer.
pub const BUGS: [&str; 53] = [
    // Log.
    "ack-before-flush",
    "log-write-not-durable",
    "placed-payload-not-durable",
    "vote-not-persisted",
    "truncate-at-first-bad-batch",
    "torn-payload-counts",
    "damaged-replica-opens",
    "segment-reused-early",
    "purge-one-too-far",
    "commit-ahead-of-entry",
    "log-payload-not-verified",
    // Store.
    "checkpoint-without-flush",
    "superblock-not-durable",
    "page-mirror-not-read",
    "checksum-not-verified",
    "wrong-salt",
    "pins-forgotten-at-restart",
    "pinned-extent-overwritten",
    "adopted-before-durable",
    // Group.
    "checkpoint-misses-last-entry",
    "sessions-ahead-of-checkpoint",
    "dedupe-lost-on-restart",
    "duplicate-applied",
    "stale-retry-applied",
    "epoch-checked-on-leader-only",
    "seal-clears-session",
    "lease-across-suspend",
    "lease-too-long",
    "lease-from-reply",
    "lease-before-first-round",
    "lease-through-handover",
    "restarted-follower-votes",
    "learner-counted",
    "read-without-round",
    "round-answers-late-reads",
    "discarded-answered-ok",
    "write-back-drops-newer",
    "write-back-ignores-hold",
    "discard-not-seen",
    "copy-mark-forgotten",
    "copy-skips-changed",
    "copy-with-newer-sessions",
    "copy-base-of-applied",
    "changes-skip-a-generation",
    "changes-survive-a-copy",
    "install-keeps-overlay",
    "quiet-follower-waits",
    "admitted-without-counting",
    // Transport and client.
    "body-crc-not-checked",
    "retry-with-new-sequence",
    "watermark-too-early",
    "abandoned-not-waited-for",
    "flush-does-not-wait",
];

/// Position of a bug in [`BUGS`].
///
/// # Panics
/// When there is none of that name. Hooks ask at compile time.
#[must_use]
pub const fn number(name: &str) -> usize {
    let mut number = 0;
    while number < BUGS.len() {
        if is_same(BUGS[number].as_bytes(), name.as_bytes()) {
            return number;
        }
        number += 1;
    }
    panic!("no seeded bug has this name")
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Whether the code is to be wrong here, in the way of this name; a constant `false` but in the
/// simulator.
#[macro_export]
macro_rules! seeded_bug {
    ($name:literal) => {
        $crate::seeded::is_on(const { $crate::seeded::number($name) })
    };
}

/// See [`seeded_bug!`](crate::seeded_bug).
#[cfg(not(ogee_sim))]
#[inline(always)]
#[must_use]
pub const fn is_on(_number: usize) -> bool {
    false
}

#[cfg(ogee_sim)]
pub use chosen::{UnknownBug, chosen, is_on, times_asked};

#[cfg(ogee_sim)]
mod chosen {
    use super::BUGS;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Names the bug of this process.
    const VARIABLE: &str = "OGEE_SIM_BUG";

    /// `OGEE_SIM_BUG` names no bug.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    #[error("OGEE_SIM_BUG={name}: no seeded bug has this name; there are: {}", BUGS.join(" "))]
    pub struct UnknownBug {
        /// What was asked for.
        pub name: String,
    }

    static TIMES_ASKED: AtomicU64 = AtomicU64::new(0);

    /// The bug of this process, if any. For the simulator, before it starts.
    ///
    /// # Errors
    /// [`UnknownBug`], which lists what there is.
    pub fn chosen() -> Result<Option<&'static str>, UnknownBug> {
        Ok(read()?.map(|number| BUGS[number]))
    }

    /// How often the code came by a hook of this process's bug: none means that the seed could not
    /// find it.
    pub fn times_asked() -> u64 {
        TIMES_ASKED.load(Ordering::Relaxed)
    }

    /// See [`seeded_bug!`](crate::seeded_bug).
    ///
    /// # Panics
    /// When the environment names a bug that does not exist.
    pub fn is_on(number: usize) -> bool {
        let is_on = read().unwrap_or_else(|error| panic!("{error}")) == Some(number);
        TIMES_ASKED.fetch_add(u64::from(is_on), Ordering::Relaxed);
        is_on
    }

    fn read() -> Result<Option<usize>, UnknownBug> {
        static CHOSEN: OnceLock<Result<Option<usize>, UnknownBug>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| match std::env::var(VARIABLE) {
            Err(_) => Ok(None),
            Ok(name) if name.is_empty() => Ok(None),
            Ok(name) => {
                let number = BUGS.iter().position(|bug| *bug == name);
                number.map(Some).ok_or(UnknownBug { name })
            }
        });
        chosen.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{BUGS, number};
    use std::collections::BTreeSet;

    // At compile time: in this build no hook is anything but `false`.
    #[cfg(not(ogee_sim))]
    const _: () = assert!(!crate::seeded_bug!("ack-before-flush"));

    #[test]
    fn every_name_has_its_own_number() {
        for (at, name) in BUGS.iter().enumerate() {
            assert_eq!(number(name), at);
        }
        assert_eq!(BUGS.iter().collect::<BTreeSet<_>>().len(), BUGS.len());
    }

    #[test]
    #[should_panic(expected = "no seeded bug has this name")]
    fn a_part_of_a_name_is_no_name() {
        let _ = number("ack-before");
    }
}
