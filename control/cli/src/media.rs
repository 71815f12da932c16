//! What kind of device a path leads to, as the kernel tells it.

use ogee_device::{disk_of, number_below};
use ogee_proto::media::MediaClass;
use std::fs;
use std::path::Path;

/// Of a block device its own class; of a file, or of one that is still to be made, that of the device under its file
/// system. None where there is no such device, as in memory, or where the kernel does not say.
pub(crate) fn detect(path: &Path) -> Option<MediaClass> {
    let found = fs::metadata(path).ok();
    let found = found.or_else(|| fs::metadata(path.parent()?).ok())?;
    class_of(Path::new("/sys"), number_below(&found))
}

fn class_of(sys: &Path, number: u64) -> Option<MediaClass> {
    let at = disk_of(sys, number)?;
    let turns = fs::read_to_string(at.join("queue/rotational")).ok()?;
    let name = at.file_name()?.to_str()?;
    match turns.trim() {
        "1" => Some(MediaClass::Hdd),
        "0" if name.starts_with("nvme") => Some(MediaClass::Nvme),
        "0" => Some(MediaClass::Ssd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{class_of, detect};
    use ogee_proto::media::MediaClass;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    /// A disk with a partition, in a tree like the kernel's.
    fn disk(sys: &Path, name: &str, minor: u32, turns: &str) {
        let at = sys.join("devices").join(name);
        fs::create_dir_all(at.join("queue")).unwrap();
        fs::write(at.join("queue/rotational"), turns).unwrap();
        let part = at.join(format!("{name}p1"));
        fs::create_dir_all(&part).unwrap();
        let links = sys.join("dev/block");
        fs::create_dir_all(&links).unwrap();
        symlink(&at, links.join(format!("8:{minor}"))).unwrap();
        symlink(&part, links.join(format!("8:{}", minor + 1))).unwrap();
    }

    #[test]
    fn a_disk_and_its_partition_are_of_one_class() {
        let sys = tempfile::tempdir().unwrap();
        disk(sys.path(), "sda", 0, "1\n");
        disk(sys.path(), "sdb", 16, "0\n");
        disk(sys.path(), "nvme0n1", 32, "0\n");
        disk(sys.path(), "odd", 48, "?");
        let of = |minor| class_of(sys.path(), libc::makedev(8, minor));
        for at in [0, 1] {
            assert_eq!(of(at), Some(MediaClass::Hdd));
            assert_eq!(of(16 + at), Some(MediaClass::Ssd));
            assert_eq!(of(32 + at), Some(MediaClass::Nvme));
            assert_eq!(of(48 + at), None);
        }
        assert_eq!(of(99), None, "there is none");
        assert_eq!(detect(Path::new("/proc/self/stat")), None);
    }
}
