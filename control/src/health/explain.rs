//! What each code means, for people: `ogee explain`. One table, which a test holds against the code.

/// A health code in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Stable.
    pub code: &'static str,
    /// WARN: I/O works; ERR: some does not.
    pub severity: &'static str,
    /// In one line.
    pub title: &'static str,
    /// What it says of the cluster.
    pub meaning: &'static str,
    /// What happens without anybody.
    pub by_itself: &'static str,
    /// What an operator does.
    pub to_do: &'static str,
}

/// Every code that `assess` gives, in order.
pub const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        code: "OGEE-1001",
        severity: "WARN",
        title: "chunkservers are offline",
        meaning: "They have not reported for offline_ms (3 s unless configured). Copysets with a majority elsewhere \
                  go on; what lost its leader elected another one.",
        by_itself: "After heal.recover_after_ms (10 min) their replicas are made anew on other chunkservers. If they \
                    come back before, what they lack is copied to them.",
        to_do: "ogee server ls says which and since when. Start them; their log says why they ended. One that is gone \
                for good: ogee server lost NAME, and ogee server rm NAME when it is empty.",
    },
    Explanation {
        code: "OGEE-1002",
        severity: "ERR",
        title: "copysets have no quorum",
        meaning: "Half or more of their replicas are on chunkservers that are offline. Requests to their chunks wait; \
                  nothing that was acknowledged is lost as long as a majority comes back.",
        by_itself: "They serve again within an election when a majority is back. Nothing is re-protected before: the \
                    replicas that are left may lack acknowledged writes.",
        to_do: "Start the offline chunkservers: ogee server ls. Do not wipe their devices. If a majority will never come back: \
                ogee server lost NAME, then ogee copyset reset COPYSET.",
    },
    Explanation {
        code: "OGEE-1003",
        severity: "WARN",
        title: "copysets have an offline replica",
        meaning: "They serve with a majority. One more failure among their replicas may stop them.",
        by_itself: "Re-protection begins heal.recover_after_ms after the device went away, at once if it was declared \
                    lost.",
        to_do: "Start the chunkserver, or wait. At once: ogee server lost NAME.",
    },
    Explanation {
        code: "OGEE-1004",
        severity: "ERR",
        title: "copysets have no leader",
        meaning: "A majority of their replicas is online and none leads, as far as was reported: an election goes on, \
                  or replicas cannot reach each other.",
        by_itself: "An election takes one to two seconds.",
        to_do: "If it lasts: check that chunkservers reach each other's listen addresses, and their logs.",
    },
    Explanation {
        code: "OGEE-1005",
        severity: "WARN",
        title: "devices have failed",
        meaning: "A write or flush failed, so the store takes no part any more; a failed write is never retried as if \
                  it had worked. The other replicas serve.",
        by_itself: "Their replicas are made anew elsewhere after heal.recover_after_ms.",
        to_do: "Replace the device. Without waiting: ogee device lost STORE.",
    },
    Explanation {
        code: "OGEE-1006",
        severity: "WARN",
        title: "there is no pool with copysets",
        meaning: "No volume can be made yet.",
        by_itself: "Nothing.",
        to_do: "ogee pool create default, with chunkservers online in as many zones as there are to be replicas.",
    },
    Explanation {
        code: "OGEE-1007",
        severity: "WARN",
        title: "copysets are being formed",
        meaning: "They were placed and have not had a leader yet. Volumes use only those that have.",
        by_itself: "Chunkservers make the replicas when they are told to, within seconds.",
        to_do: "If it lasts: the chunkservers' logs say what hinders them.",
    },
    Explanation {
        code: "OGEE-1008",
        severity: "WARN",
        title: "copysets have lost a replica on a chunkserver that is online",
        meaning: "A replica that existed is not reported: its device was replaced, wiped or not configured. It is \
                  never made again under its id, since it would have forgotten its vote.",
        by_itself: "After heal.recover_after_ms (10 min; 0: never) it is made anew under a new id, on the same device if \
                    that is there and has room, while the others are whole and a majority. If the device is away, it is \
                    re-protected like one that is offline.",
        to_do: "Wait: ogee job ls says how far it is. At once: ogee copyset show COPYSET, then ogee copyset replace \
                COPYSET --replica ID --to CHUNKSERVER.",
    },
    Explanation {
        code: "OGEE-1009",
        severity: "WARN",
        title: "copysets have a replica that is damaged or has stopped",
        meaning: "Its log or store cannot be relied on beyond what the other replicas can repair, or it ended with an \
                  error. It neither votes nor acknowledges.",
        by_itself: "What can be repaired from the others was tried. After heal.recover_after_ms (10 min; 0: never) it is \
                    made anew elsewhere, or, if it is damaged and no other device can take it, in its place; while the others \
                    are whole and a majority.",
        to_do: "Wait: ogee job ls says how far it is. At once: ogee copyset show COPYSET, then ogee copyset replace \
                COPYSET --replica ID --to CHUNKSERVER. If it comes again on one device, replace that.",
    },
    Explanation {
        code: "OGEE-1010",
        severity: "WARN",
        title: "copysets have a replica that is being copied or replaced",
        meaning: "A replica gets its contents, or a new one is to take another's place.",
        by_itself: "It ends by itself; writers are slowed down only as far as the copy needs.",
        to_do: "Wait: ogee copyset show COPYSET and ogee job ls say how far it is.",
    },
    Explanation {
        code: "OGEE-1011",
        severity: "ERR",
        title: "devices are full and refuse writes",
        meaning: "Thin volumes have promised more than there is. New data waits; what has its place can be written \
                  over, and reads, discards and removals go on.",
        by_itself: "Writers that wait go on by themselves when there is room.",
        to_do: "Remove volumes, discard in guests (fstrim), or add devices: ogee device ls.",
    },
    Explanation {
        code: "OGEE-1012",
        severity: "WARN",
        title: "copysets have a replica that does not catch up with their writers",
        meaning: "A copy gains nothing on what writers change, or a follower takes entries more slowly than they come. \
                  Nobody waits for it; redundancy is reduced meanwhile.",
        by_itself: "The copy goes on, and ends when writers slow down.",
        to_do: "Look at the device and the network of its chunkserver; raise or remove raft.copy_rate.",
    },
    Explanation {
        code: "OGEE-1013",
        severity: "WARN",
        title: "copysets are degraded and being re-protected",
        meaning: "Replicas are made anew elsewhere. Until that ends one more failure among the others may stop them.",
        by_itself: "Jobs go on within heal.moves_max and the limits of each zone, pool, server and device.",
        to_do: "Wait: ogee job ls says how far it is.",
    },
    Explanation {
        code: "OGEE-1014",
        severity: "WARN",
        title: "copysets are degraded and have no re-protection target",
        meaning: "No device that is online, with room, is in a zone without a replica of them: with three zones and \
                  three replicas, a zone that is gone leaves nowhere to go.",
        by_itself: "Re-protection begins when there is a place.",
        to_do: "Start the chunkservers of that zone, or add one there or in another zone.",
    },
    Explanation {
        code: "OGEE-1015",
        severity: "WARN",
        title: "copysets cannot leave a device that is drained",
        meaning: "No other device that is online, with room, is in a zone without a replica of them.",
        by_itself: "The drain goes on when there is a place.",
        to_do: "Add a chunkserver with space in that zone; or ogee server drain NAME --cancel.",
    },
    Explanation {
        code: "OGEE-1016",
        severity: "WARN",
        title: "chunkservers are in maintenance",
        meaning: "An operator is about to stop them, or has. Their leaders have moved, nothing new goes there, and their \
                  replicas count as missed, not as lost; one more failure may stop copysets that they have a part of.",
        by_itself: "It ends when its time is over; what has been away for heal.recover_after_ms by then is made anew at \
                    once.",
        to_do: "Start them again, then ogee server maintenance NAME --cancel. If it takes longer: ogee server \
                maintenance NAME --for TIME.",
    },
    Explanation {
        code: "OGEE-1020",
        severity: "WARN",
        title: "the metadata comes from a backup and was not accepted yet",
        meaning: "The metadata servers were restored. What chunkservers did after the backup is learnt from their \
                  reports: who the voters of copysets are, and which volumes they hold. Volumes serve and can be \
                  attached and made.",
        by_itself: "Copysets' voters are taken over as their leaders report them. No replica is made, moved or \
                    deleted, and nothing is freed.",
        to_do: "ogee status and ogee mds strangers until every chunkserver was heard; then ogee mds accept-restore.",
    },
    Explanation {
        code: "OGEE-1021",
        severity: "WARN",
        title: "volumes or replicas are held that the restored metadata does not know",
        meaning: "They were made after the backup, or a volume that the backup has was removed after it. Their data is \
                  there, but no name leads to it.",
        by_itself: "Nothing: they are never deleted without an operator's word. They take space.",
        to_do: "ogee mds strangers lists them. ogee mds discard VOLUME frees a volume's data for good; ogee volume rm \
                NAME forgets one that was removed. A replica of a copyset that is not known stays until its device is \
                formatted.",
    },
    Explanation {
        code: "OGEE-1025",
        severity: "WARN",
        title: "devices limp: they are much slower than their peers",
        meaning: "Their requests take at least sick.factor times the median of their pool, and at least sick.floor_ms \
                  (forty times that for flushes), in two heartbeats in a row.",
        by_itself: "Their leaders move at once and nothing new is placed there. They are tried with every heartbeat, \
                    taken back when they are well for sick.well_after_ms, and emptied after sick.eject_after_ms.",
        to_do: "Look at SMART (ogee device health NAME on their host), the kernel's log and who shares the device. \
                Well again: ogee device reinstate STORE; to be replaced: ogee device replace OLD NEW.",
    },
    Explanation {
        code: "OGEE-1026",
        severity: "WARN",
        title: "devices limped for too long and are emptied",
        meaning: "They limped for sick.eject_after_ms and still do. Their replicas move elsewhere; they serve \
                  until then.",
        by_itself: "Drain jobs move the replicas, one device of a zone at a time and never below the quorum. A device \
                    is taken back when it is well for sick.reinstate_after_ms.",
        to_do: "Replace it: ogee device replace OLD NEW. Well again: ogee device reinstate STORE. ogee job ls says how \
                far it is.",
    },
    Explanation {
        code: "OGEE-1027",
        severity: "ERR",
        title: "blocks are damaged on every replica",
        meaning: "Blocks of a replica fail their checksum, and every other replica answered twice without having them.",
        by_itself: "Reads of the range fail; nothing is guessed. Repair is tried again, and the code clears when the \
                    range is written or a good copy returns.",
        to_do: "Restore the range that ogee status names from a backup, or write it anew. Put back a device that was \
                taken out. Check the devices: ogee device ls.",
    },
    Explanation {
        code: "OGEE-1028",
        severity: "WARN",
        title: "devices are worn",
        meaning: "64 or more of their extents did not take what a repair wrote over them, and are never used again.",
        by_itself: "They serve, get nothing new and are emptied. Reinstating one does not last.",
        to_do: "ogee device replace OLD NEW. The kernel's log and SMART (ogee device health NAME) say more.",
    },
    Explanation {
        code: "OGEE-1029",
        severity: "WARN",
        title: "devices limp or are worn and cannot be emptied",
        meaning: "Some of their replicas have no target, for want of a zone or of space; or another device of their \
                  zone is being emptied.",
        by_itself: "It is tried again with every look, once a second.",
        to_do: "Add a device with room in that zone, or wait until the other one is empty: ogee job ls.",
    },
    Explanation {
        code: "OGEE-1030",
        severity: "ERR",
        title: "replicas differ and no rule tells which is right",
        meaning: "All replicas of a copyset were compared at one log entry. Blocks differ, each with a checksum that \
                  fits it, and no contents are held by more than half of the replicas: a device took a write and lost \
                  it, or software is at fault.",
        by_itself: "Nothing is guessed, and reads return what the leader holds. The range is compared again every half \
                    minute; the code clears when the replicas agree, as they do once it is written anew.",
        to_do: "Check what uses the range that ogee status names; write it anew, or restore it from a backup. The \
                chunkservers' logs name the replicas that differ: look at their devices.",
    },
    Explanation {
        code: "OGEE-1032",
        severity: "ERR",
        title: "copysets have lost the majority of their replicas for good",
        meaning: "So many of their devices were declared lost, or have been away for a minute beside those, that no \
                  majority can come together. Requests to their chunks wait.",
        by_itself: "Nothing: a replica that is left may lack writes that were acknowledged.",
        to_do: "Start whatever can be started. Else ogee copyset reset COPYSET: it goes on with the replica that is \
                furthest, and names the volumes that may have lost writes. Check those afterwards.",
    },
    Explanation {
        code: "OGEE-1033",
        severity: "WARN",
        title: "copysets were reset and go on with fewer replicas",
        meaning: "One replica goes on without a majority that was lost. What only the lost ones had is gone.",
        by_itself: "New replicas are made one after another. Replicas of the old group that come back are deleted.",
        to_do: "Wait: ogee job ls says how far it is. Check the file systems of the volumes that ogee events names.",
    },
    Explanation {
        code: "OGEE-1054",
        severity: "WARN",
        title: "drives warn of their own health",
        meaning: "NVMe drives set a critical warning in their health page: few spare blocks, a \
                  temperature beyond a threshold, no reliability, no writes, a failed backup of volatile memory. They \
                  serve as long as they answer.",
        by_itself: "Nothing is moved: a drive that fails requests or limps is dealt with as such. The page is read once a \
                    minute, and the code clears when the drive does not warn any more.",
        to_do: "ogee device health STORE shows the page. Cool a drive that is hot. Else replace it before it fails: ogee \
                device replace OLD NEW.",
    },
    Explanation {
        code: "OGEE-1060",
        severity: "WARN",
        title: "jobs are paused by an operator",
        meaning: "ogee job pause was given. No replica begins to be made anew, drained or moved, and no leader moves for \
                  evenness or a drain; other codes that announce these wait as well. What had begun goes on.",
        by_itself: "Leaders still leave devices that limp and chunkservers in maintenance. It outlives restarts and changes \
                    of the leading metadata server, and does not end by itself.",
        to_do: "ogee job resume. One copyset at once: ogee copyset replace, which is not held up.",
    },
    Explanation {
        code: "OGEE-1061",
        severity: "WARN",
        title: "devices are nearly full",
        meaning: "heal.nearly_full_percent (85) or more of what they have for data is taken. One that is full refuses writes \
                  that need new space (OGEE-1011), and nothing is moved to one that would keep less than a twentieth free.",
        by_itself: "New replicas go where there is more room, and devices are evened out by the number of their replicas, not by \
                    bytes. Nothing is refused yet.",
        to_do: "ogee device ls and ogee pool ls show what is left. Add devices; remove volumes, or discard in guests (fstrim); \
                bound what may be promised: ogee pool set NAME --quota SIZE.",
    },
    Explanation {
        code: "OGEE-1065",
        severity: "WARN",
        title: "metadata pages of stores have one good copy only",
        meaning: "Every metadata page of a store stands twice on its device. When they were verified last, some copies were \
                  bad, and what was written there to put them right did not stay. The other copies serve.",
        by_itself: "They are tried again whenever metadata is verified (scrub.light_period_s, a day). A checkpoint that \
                    changes such a page writes it elsewhere. Should the other copy go as well while the chunkserver runs, the \
                    page is written anew from memory; while it does not run, the store does not open.",
        to_do: "Replace the device: ogee device replace OLD NEW. ogee device scrub NAME --light --now tries again at once.",
    },
    Explanation {
        code: "OGEE-1066",
        severity: "WARN",
        title: "metadata pages of stores could be read in neither copy",
        meaning: "Every metadata page of a store stands twice on its device. When they were verified last, the device failed the \
                  reads of both copies of some. That is no proof of damage, and nothing is lost: the chunkserver has all of it \
                  in memory, and serves.",
        by_itself: "If the device reads other things, the pages were written anew elsewhere. If it read nothing, they were let \
                    be, and are tried again whenever metadata is verified (scrub.light_period_s, a day). The code clears when \
                    a pass can read all.",
        to_do: "Look at the device (ogee device health STORE, the kernel's log) and its cables. Replace it: ogee device replace \
                OLD NEW. Do not restart its chunkserver before: a store that cannot be read does not open. ogee device scrub \
                NAME --light --now tries again.",
    },
];

#[cfg(test)]
mod tests {
    use super::EXPLANATIONS;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// A code in the health module, wherever it is given.
    fn given() -> BTreeSet<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/health");
        let mut codes = BTreeSet::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("explain.rs") {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let found = text.split("\"OGEE-").skip(1);
            codes.extend(found.map(|rest| format!("OGEE-{}", rest.split('"').next().unwrap())));
        }
        codes
    }

    #[test]
    fn every_code_is_explained_and_none_is_invented() {
        let explained: BTreeSet<String> = EXPLANATIONS.iter().map(|it| it.code.into()).collect();
        assert_eq!(explained.len(), EXPLANATIONS.len(), "a code stands twice");
        assert!(EXPLANATIONS.is_sorted_by_key(|it| it.code));
        let given = given();
        assert!(given.len() > 10, "the scan sees codes");
        assert_eq!(given, explained);
    }

    #[test]
    fn texts_are_there_and_bounded() {
        for it in EXPLANATIONS {
            assert!(matches!(it.severity, "WARN" | "ERR"), "{}", it.code);
            for text in [it.title, it.meaning, it.by_itself, it.to_do] {
                assert!(!text.is_empty() && text.len() <= 400, "{}: {text}", it.code);
                assert!(!text.contains("  "), "{}: a gap in {text}", it.code);
            }
        }
    }
}
