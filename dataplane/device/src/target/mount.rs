//! Whether a block device, or a partition of it, carries a mounted file system.

use crate::error::DeviceError;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// One line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// `major:minor` as the kernel files it. Some file systems have a number of their own here.
    device: String,
    /// What was mounted: often a path below `/dev`.
    source: PathBuf,
    point: PathBuf,
}

/// Refuses a block device that the mount table names.
///
/// Mounts in other namespaces are not listed; the kernel's exclusive claim finds those later.
pub(super) fn refuse_mounted(path: &Path, rdev: u64) -> Result<(), DeviceError> {
    let table = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| DeviceError::open("/proc/self/mountinfo", error))?;
    let ours = with_partitions(rdev);
    match find(&table, &ours, source_number) {
        Some(mount_point) => Err(DeviceError::Mounted {
            path: path.into(),
            mount_point,
        }),
        None => Ok(()),
    }
}

/// Where one of the devices `ours` is mounted. `number_of` looks up a source path.
fn find(
    table: &str,
    ours: &[String],
    number_of: impl Fn(&Path) -> Option<String>,
) -> Option<PathBuf> {
    let is_ours = |mount: &Mount| {
        ours.contains(&mount.device)
            || number_of(&mount.source).is_some_and(|number| ours.contains(&number))
    };
    table
        .lines()
        .filter_map(parse)
        .find(is_ours)
        .map(|mount| mount.point)
}

/// A line reads `36 35 98:0 /root /mnt rw master:1 - ext4 /dev/sda rw`: the fields before `-` vary
/// in number, those named here have fixed places.
fn parse(line: &str) -> Option<Mount> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (device, point) = (front.next()?, front.nth(1)?);
    let source = back.split(' ').nth(1)?;
    Some(Mount {
        device: device.to_owned(),
        source: unescape(source),
        point: unescape(point),
    })
}

/// Undoes the table's escapes: white space and backslashes stand as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .first_chunk::<3>()
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() {
            tail.split_at(3).1
        } else {
            tail
        };
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn number(rdev: u64) -> String {
    format!("{}:{}", libc::major(rdev), libc::minor(rdev))
}

/// Number of the block device at a path.
fn source_number(source: &Path) -> Option<String> {
    let metadata = fs::metadata(source).ok()?;
    metadata
        .file_type()
        .is_block_device()
        .then(|| number(metadata.rdev()))
}

/// The device itself and the partitions that the kernel shows below it.
fn with_partitions(rdev: u64) -> Vec<String> {
    let own = number(rdev);
    let below = fs::read_dir(format!("/sys/dev/block/{own}"))
        .into_iter()
        .flatten()
        .flatten();
    let partitions = below
        .filter(|entry| entry.path().join("partition").exists())
        .filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok())
        .map(|text| text.trim().to_owned());
    std::iter::once(own.clone()).chain(partitions).collect()
}

#[cfg(test)]
mod tests {
    use super::{Mount, find, parse, refuse_mounted, source_number, unescape};
    use crate::error::DeviceError;
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    const TABLE: &str = "\
21 1 0:20 / /proc rw,nosuid - proc proc rw
30 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw,discard
31 30 8:17 /sub /mnt/with\\040space rw - xfs /dev/sdb1 rw
32 30 0:45 / /btr rw - btrfs /dev/sdc rw
short line
";

    fn lookup(source: &Path) -> Option<String> {
        (source == Path::new("/dev/sdc")).then(|| "8:32".to_owned())
    }

    fn found(ours: &[&str]) -> Option<PathBuf> {
        let ours: Vec<String> = ours.iter().map(|&number| number.to_owned()).collect();
        find(TABLE, &ours, lookup)
    }

    #[test]
    fn a_mounted_device_is_found_by_its_number() {
        assert_eq!(found(&["254:0"]), Some("/".into()));
        assert_eq!(found(&["8:16", "8:17"]), Some("/mnt/with space".into()));
        assert_eq!(found(&["254:1"]), None);
    }

    /// btrfs shows a number of its own; its source gives it away.
    #[test]
    fn a_mounted_device_is_found_by_its_source() {
        assert_eq!(found(&["8:32"]), Some("/btr".into()));
    }

    #[test]
    fn lines_are_parsed_whatever_the_optional_fields() {
        let mount = parse("30 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw");
        let expected = Mount {
            device: "254:0".into(),
            source: "/dev/vda".into(),
            point: "/".into(),
        };
        assert_eq!(mount, Some(expected));
        assert_eq!(parse(""), None);
        assert_eq!(parse("1 2 3:4 - ext4"), None);
    }

    #[test]
    fn escapes_are_undone() {
        for (text, path) in [
            ("a\\040b", "a b"),
            ("\\134", "\\"),
            ("a\\", "a\\"),
            ("\\09x", "\\09x"),
            ("é", "é"),
        ] {
            assert_eq!(unescape(text), Path::new(path), "{text}");
        }
    }

    /// This machine's own root, where it stands on a block device: its number is refused.
    #[test]
    fn the_root_file_system_s_device_is_refused() {
        let root = fs::metadata("/").expect("root").dev();
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mount table");
        let number = super::number(root);
        if !table
            .lines()
            .filter_map(parse)
            .any(|mount| mount.device == number)
        {
            return; // Its number is not in the table (a stacked file system): nothing to check.
        }
        let error = refuse_mounted(Path::new("/dev/x"), root).expect_err("mounted");
        assert!(matches!(error, DeviceError::Mounted { .. }), "{error}");
    }

    #[test]
    fn only_block_devices_have_a_number() {
        assert_eq!(source_number(Path::new("/dev/null")), None);
        assert_eq!(source_number(Path::new("proc")), None);
    }
}
