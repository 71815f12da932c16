//! Who holds the lock on a file, from the kernel's table of locks.

/// Process that holds an advisory lock on the inode, if the table tells.
///
/// A line reads `1: FLOCK ADVISORY WRITE 1234 fe:00:5678 0 EOF`: process, then device and inode. A
/// line with `->` is a process that waits, not one that holds.
pub(super) fn find(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!(
        "{:02x}:{:02x}:{inode}",
        libc::major(device),
        libc::minor(device)
    );
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next().filter(|kind| *kind == "FLOCK");
        let (pid, file) = kind.and_then(|_| Some((words.nth(2)?, words.next()?)))?;
        // A holder in another process namespace is shown as zero or a negative number.
        pid.parse().ok().filter(|pid| file == wanted && *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    const LOCKS: &str = "\
1: POSIX  ADVISORY  READ  999 fe:00:5678 128 128
1: -> FLOCK  ADVISORY  WRITE 77 fe:00:5678 0 EOF
2: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF
3: FLOCK  ADVISORY  WRITE -1 fe:00:9 0 EOF
4: FLOCK  ADVISORY  WRITE 4321 08:11:5678 0 EOF
nonsense
";

    #[test]
    fn the_holder_is_found_and_not_the_waiter() {
        assert_eq!(find(LOCKS, libc::makedev(0xfe, 0), 5678), Some(1234));
        assert_eq!(find(LOCKS, libc::makedev(8, 0x11), 5678), Some(4321));
    }

    #[test]
    fn unknown_holders_are_none() {
        for (device, inode) in [
            (libc::makedev(0xfe, 0), 9),
            (libc::makedev(0xfe, 0), 1),
            (0, 0),
        ] {
            assert_eq!(find(LOCKS, device, inode), None);
        }
    }
}
