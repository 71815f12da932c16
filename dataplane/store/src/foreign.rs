//! Recognises what must not be overwritten.

use std::fmt;

/// What stands on a device that is not ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// A partition table.
    Gpt,
    /// A boot sector or DOS partition table.
    Mbr,
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// FAT or exFAT.
    Fat,
    /// An optical disk image.
    Iso9660,
    /// Swap space.
    Swap,
    /// An LVM physical volume.
    Lvm,
    /// A member of a Linux software RAID.
    MdRaid,
    /// An encrypted volume.
    Luks,
    /// A Ceph OSD.
    BlueStore,
    /// A QEMU disk image.
    Qcow2,
    /// A superblock of ours that is damaged.
    DamagedStore,
    /// Something not recognised.
    Unknown {
        /// Where the first non-zero byte stands.
        offset: u64,
    },
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "a GPT partition table",
            Self::Mbr => "a boot sector or DOS partition table",
            Self::Ext => "an ext2/3/4 file system",
            Self::Xfs => "an XFS file system",
            Self::Btrfs => "a Btrfs file system",
            Self::Ntfs => "an NTFS file system",
            Self::Fat => "a FAT file system",
            Self::Iso9660 => "an ISO 9660 image",
            Self::Swap => "swap space",
            Self::Lvm => "an LVM physical volume",
            Self::MdRaid => "a member of a software RAID",
            Self::Luks => "a LUKS encrypted volume",
            Self::BlueStore => "a Ceph BlueStore OSD",
            Self::Qcow2 => "a qcow2 image",
            Self::DamagedStore => "an Ogee store with a damaged superblock",
            Self::Unknown { offset } => {
                return write!(f, "unknown data (first non-zero byte at {offset})");
            }
        })
    }
}

/// Where a signature stands: (offset from the start, bytes, meaning). The more telling come first:
/// a GPT disk has a DOS boot sector too, and a file system may hold one.
const AT_HEAD: &[(usize, &[u8], Foreign)] = &[
    (512, b"EFI PART", Foreign::Gpt),
    (4096, b"EFI PART", Foreign::Gpt),
    (0, b"LUKS\xba\xbe", Foreign::Luks),
    (0, b"bluestore block device", Foreign::BlueStore),
    (0, b"QFI\xfb", Foreign::Qcow2),
    (0, b"XFSB", Foreign::Xfs),
    (1080, b"\x53\xef", Foreign::Ext),
    (65536 + 64, b"_BHRfS_M", Foreign::Btrfs),
    (512, b"LABELONE", Foreign::Lvm),
    (0, b"LABELONE", Foreign::Lvm),
    (1024, b"LABELONE", Foreign::Lvm),
    (1536, b"LABELONE", Foreign::Lvm),
    (4096, b"\xfc\x4e\x2b\xa9", Foreign::MdRaid),
    (0, b"\xfc\x4e\x2b\xa9", Foreign::MdRaid),
    (4086, b"SWAPSPACE2", Foreign::Swap),
    (4086, b"SWAP-SPACE", Foreign::Swap),
    (32769, b"CD001", Foreign::Iso9660),
    (3, b"NTFS    ", Foreign::Ntfs),
    (3, b"EXFAT   ", Foreign::Fat),
    (54, b"FAT", Foreign::Fat),
    (82, b"FAT32", Foreign::Fat),
    (510, b"\x55\xaa", Foreign::Mbr),
];

/// The same from the end of the device.
const AT_TAIL: &[(usize, &[u8], Foreign)] = &[
    (512, b"EFI PART", Foreign::Gpt),
    (4096, b"EFI PART", Foreign::Gpt),
    (8192, b"\xfc\x4e\x2b\xa9", Foreign::MdRaid),
    (65536, b"\xfc\x4e\x2b\xa9", Foreign::MdRaid),
];

/// What stands in the first and last bytes of a device; `tail_at` is where `tail` begins.
pub fn detect(head: &[u8], tail: &[u8], tail_at: u64) -> Option<Foreign> {
    let at_head = AT_HEAD
        .iter()
        .find(|(at, magic, _)| stands_at(head, Some(*at), magic));
    let from_end = |at: usize| tail.len().checked_sub(at);
    let at_tail = || {
        AT_TAIL
            .iter()
            .find(|(at, magic, _)| stands_at(tail, from_end(*at), magic))
    };
    let known = at_head.or_else(at_tail).map(|(_, _, found)| *found);
    known
        .or_else(|| first_non_zero(head, 0))
        .or_else(|| first_non_zero(tail, tail_at))
}

fn stands_at(bytes: &[u8], at: Option<usize>, magic: &[u8]) -> bool {
    at.and_then(|at| bytes.get(at..))
        .is_some_and(|bytes| bytes.starts_with(magic))
}

fn first_non_zero(bytes: &[u8], base: u64) -> Option<Foreign> {
    let at = bytes.iter().position(|&byte| byte != 0)?;
    Some(Foreign::Unknown {
        offset: base + at as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: usize = 1 << 20;
    const TAIL: usize = 64 << 10;

    #[test]
    fn every_signature_is_recognised_where_it_stands() {
        for (at, magic, expected) in AT_HEAD {
            let mut head = vec![0; HEAD];
            head[*at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(detect(&head, &[], 0), Some(*expected), "{at}");
        }
        for (at, magic, expected) in AT_TAIL {
            let mut tail = vec![0; TAIL];
            tail[TAIL - at..TAIL - at + magic.len()].copy_from_slice(magic);
            assert_eq!(detect(&[0; HEAD], &tail, 0), Some(*expected), "{at}");
        }
    }

    #[test]
    fn zeros_are_nobodys_and_anything_else_is_somebodys() {
        let (mut head, mut tail) = (vec![0; HEAD], vec![0; TAIL]);
        assert_eq!(detect(&head, &tail, 7 << 20), None);
        tail[9] = 1;
        let offset = (7 << 20) + 9;
        assert_eq!(
            detect(&head, &tail, 7 << 20),
            Some(Foreign::Unknown { offset })
        );
        head[HEAD - 1] = 1;
        let offset = HEAD as u64 - 1;
        assert_eq!(
            detect(&head, &tail, 7 << 20),
            Some(Foreign::Unknown { offset })
        );
    }
}
