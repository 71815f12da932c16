//! The health of NVMe drives that the kernel drives, below stores on block devices and files.
//!
//! *Place*: beside the heartbeat; a shard never asks. *Owner*: the control thread; the questions block, so a thread of its pool
//! asks them. *Invariants*: once a [`LOOK`], drive after drive, one thread at most, however long one does not answer. Which
//! drive is below a store is looked up each time: files move, drives are changed. A drive is asked for its health page, nothing
//! else, where this process may. *On failure*: it is said why nothing is known; what was told before stays, marked as old.

use crate::config::StoreConfig;
use crate::order::{DriveUnknown, ShardReport};
use ogee_device::{DriveHealth, NvmeVitals, disk_of, number_below, whole_disk};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How often they are asked.
const LOOK: Duration = Duration::from_secs(60);
/// Devices that stand on each other, at most.
const LAYERS_MAX: usize = 8;

/// See the module.
pub(super) struct KernelDrives {
    known: Arc<Mutex<BTreeMap<PathBuf, Seen>>>,
    asking: JoinHandle<()>,
}

/// What is known of the drive below a path.
#[derive(Clone, Copy, Debug)]
struct Seen {
    told: Option<(DriveHealth, Instant)>,
    unknown: DriveUnknown,
    refusals: u64,
}

impl Drop for KernelDrives {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl KernelDrives {
    /// Asks until it is dropped.
    pub(super) fn start(stores: &[StoreConfig]) -> Self {
        let known = Arc::new(Mutex::new(BTreeMap::new()));
        let of_kernel = stores.iter().filter(|store| store.nvme.is_none());
        let paths: Vec<PathBuf> = of_kernel.map(|store| store.path.clone()).collect();
        let asking = tokio::spawn(keep_asking(paths, known.clone()));
        Self { known, asking }
    }

    /// Puts what is known into reports, for those of which the shard knows nothing.
    pub(super) fn complete(&self, reports: &mut [ShardReport]) {
        let Ok(known) = self.known.lock() else {
            return;
        };
        let stores = reports.iter_mut().flat_map(|report| &mut report.stores);
        for store in stores.filter(|store| store.vitals.is_none()) {
            if let Some(seen) = known.get(Path::new(&store.path)) {
                store.vitals = seen.vitals();
                store.drive_unknown = seen.unknown;
            }
        }
    }
}

impl Seen {
    fn vitals(&self) -> Option<NvmeVitals> {
        let (health, at) = self.told?;
        Some(NvmeVitals {
            health: Some(health),
            age: at.elapsed(),
            is_old: self.unknown != DriveUnknown::Known,
            refusals: self.refusals,
        })
    }

    /// Says what is new.
    fn log(&self, before: Option<Self>, path: &Path) {
        let unknown = before.map_or(DriveUnknown::Known, |before| before.unknown);
        if self.unknown != unknown {
            tracing::info!(device = %path.display(), drive = self.unknown.words(), "health of the drive below a store");
        }
        let warnings = |seen: &Self| seen.told.map_or(0, |(health, _)| health.warnings.bits());
        let now = self.told.map(|(health, _)| health.warnings);
        if warnings(self) & !before.as_ref().map_or(0, warnings) != 0 {
            let words = now.map_or_else(Vec::new, |warnings| warnings.words());
            tracing::warn!(device = %path.display(), ?words, "the drive warns of its own health");
        }
    }

    /// What was told before is of a drive that may be another one by now, unless it only did not answer.
    fn after(before: Option<Self>, answer: Result<DriveHealth, DriveUnknown>) -> Self {
        let before = before.unwrap_or(Self {
            told: None,
            unknown: DriveUnknown::Known,
            refusals: 0,
        });
        match answer {
            Ok(health) => Self {
                told: Some((health, Instant::now())),
                unknown: DriveUnknown::Known,
                ..before
            },
            Err(unknown @ DriveUnknown::Refused) => Self {
                unknown,
                refusals: before.refusals + 1,
                ..before
            },
            Err(unknown) => Self {
                told: None,
                unknown,
                ..before
            },
        }
    }
}

async fn keep_asking(paths: Vec<PathBuf>, known: Arc<Mutex<BTreeMap<PathBuf, Seen>>>) {
    loop {
        for path in &paths {
            let asked = path.clone();
            let answer = tokio::task::spawn_blocking(move || ask(Path::new("/"), &asked)).await;
            let (Ok(answer), Ok(mut known)) = (answer, known.lock()) else {
                return;
            };
            let before = known.get(path).copied();
            let seen = Seen::after(before, answer);
            seen.log(before, path);
            known.insert(path.clone(), seen);
        }
        sleep(LOOK).await;
    }
}

/// Asks the drive below a path. Blocks.
fn ask(root: &Path, path: &Path) -> Result<DriveHealth, DriveUnknown> {
    let found = fs::metadata(path).map_err(|_| DriveUnknown::NoNvme)?;
    let name =
        controller_of(&root.join("sys"), number_below(&found)).ok_or(DriveUnknown::NoNvme)?;
    let file = File::open(root.join("dev").join(&name)).map_err(|error| why(&name, &error))?;
    DriveHealth::ask(&file).map_err(|error| why(&name, &error))
}

fn why(name: &str, error: &io::Error) -> DriveUnknown {
    tracing::debug!(drive = name, %error, "does not tell its health");
    match error.kind() {
        io::ErrorKind::PermissionDenied => DriveUnknown::NotPermitted,
        // The controller's own node may be missing in a container.
        io::ErrorKind::NotFound => DriveUnknown::NoNode,
        _ => DriveUnknown::Refused,
    }
}

/// The NVMe controller that a block device belongs to, `nvme0`; through partitions, and through devices that stand on exactly
/// one other. None if it is of another kind, or of several.
fn controller_of(sys: &Path, number: u64) -> Option<String> {
    let mut at = disk_of(sys, number)?;
    for _ in 0..LAYERS_MAX {
        match only_entry(&at.join("slaves")) {
            Some(below) => at = whole_disk(&below)?,
            None => return controller_at(&at),
        }
    }
    None
}

/// Of a namespace. With several paths to it, it belongs to a subsystem, and that to controllers: the first of them tells as well as
/// the others.
fn controller_at(disk: &Path) -> Option<String> {
    let above = fs::canonicalize(disk.join("device")).ok()?;
    if let Some(name) = controller_name(&above) {
        return Some(name);
    }
    let entries = fs::read_dir(&above).ok()?;
    let entries = entries.filter_map(Result::ok);
    entries
        .filter_map(|entry| controller_name(&entry.path()))
        .min()
}

/// `nvme` and a number, nothing else.
fn controller_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let number = name.strip_prefix("nvme")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.to_owned())
}

/// The entry of a directory, if it has one only.
fn only_entry(dir: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let only = entries.next()?;
    entries.next().is_none().then(|| only.path())
}

#[cfg(test)]
mod tests {
    use super::{DriveUnknown, Seen, ask, controller_of};
    use ogee_device::DriveHealth;
    use ogee_proto::drive::DriveWarnings;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::{Path, PathBuf};

    /// A tree like the kernel's.
    struct Sys(tempfile::TempDir);

    impl Sys {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            fs::create_dir_all(dir.path().join("dev/block")).expect("made");
            Self(dir)
        }

        /// A disk below `above`, with a partition: numbers `minor` and the next one.
        fn disk(&self, above: &str, name: &str, minor: u64) -> PathBuf {
            let above = self.0.path().join("devices").join(above);
            let at = above.join(name);
            fs::create_dir_all(at.join("queue")).expect("made");
            fs::create_dir_all(at.join("slaves")).expect("made");
            let part = at.join(format!("{name}p1"));
            fs::create_dir_all(&part).expect("made");
            symlink(&above, at.join("device")).expect("linked");
            self.number(&at, minor);
            self.number(&part, minor + 1);
            at
        }

        fn number(&self, at: &Path, minor: u64) {
            let link = self.0.path().join(format!("dev/block/259:{minor}"));
            symlink(at, link).expect("linked");
        }

        fn controller(&self, minor: u32) -> Option<String> {
            controller_of(self.0.path(), libc::makedev(259, minor))
        }
    }

    #[test]
    fn a_namespace_its_partition_and_what_stands_on_it_have_its_controller() {
        let sys = Sys::new();
        let disk = sys.disk("pci/nvme/nvme0", "nvme0n1", 0);
        let other = sys.disk("pci/nvme/nvme12", "nvme12n2", 2);
        for minor in [0, 1] {
            assert_eq!(sys.controller(minor).as_deref(), Some("nvme0"));
            assert_eq!(sys.controller(2 + minor).as_deref(), Some("nvme12"));
        }
        // LVM on a partition; something on that; a mirror of two drives.
        let volume = sys.disk("virtual/block", "dm-0", 4);
        symlink(disk.join("nvme0n1p1"), volume.join("slaves/nvme0n1p1")).expect("linked");
        let crypt = sys.disk("virtual/block", "dm-1", 6);
        symlink(&volume, crypt.join("slaves/dm-0")).expect("linked");
        let mirror = sys.disk("virtual/block", "md0", 8);
        symlink(&disk, mirror.join("slaves/nvme0n1")).expect("linked");
        symlink(&other, mirror.join("slaves/nvme12n2")).expect("linked");
        assert_eq!(sys.controller(4).as_deref(), Some("nvme0"));
        assert_eq!(sys.controller(6).as_deref(), Some("nvme0"));
        assert_eq!(sys.controller(8), None, "of two drives");
    }

    #[test]
    fn with_several_paths_it_is_the_first_controller_of_the_subsystem() {
        let sys = Sys::new();
        sys.disk("virtual/nvme-subsystem/nvme-subsys0", "nvme0n1", 0);
        let subsystem = sys
            .0
            .path()
            .join("devices/virtual/nvme-subsystem/nvme-subsys0");
        for name in ["nvme3", "nvme2", "nvme0c2n1"] {
            fs::create_dir(subsystem.join(name)).expect("made");
        }
        assert_eq!(sys.controller(0).as_deref(), Some("nvme2"));
    }

    #[test]
    fn other_disks_and_layers_without_end_have_none() {
        let sys = Sys::new();
        sys.disk("pci/ata1/target0:0:0", "sda", 0);
        assert_eq!(sys.controller(0), None);
        assert_eq!(sys.controller(99), None, "there is no such device");
        let odd = sys.disk("virtual/block", "dm-0", 4);
        symlink(&odd, odd.join("slaves/dm-0")).expect("linked");
        assert_eq!(sys.controller(4), None, "it stands on itself");
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let root = tempfile::tempdir().expect("a directory");
        let file = root.path().join("store");
        fs::write(&file, "").expect("written");
        let number = fs::metadata(&file).expect("is there").dev();
        assert_eq!(ask(root.path(), &file), Err(DriveUnknown::NoNvme));
        assert_eq!(
            ask(root.path(), &root.path().join("none")),
            Err(DriveUnknown::NoNvme)
        );
        // The file's device is an NVMe drive, as this tree says.
        let disk = root.path().join("sys/devices/nvme0/nvme0n1");
        fs::create_dir_all(disk.join("queue")).expect("made");
        symlink(root.path().join("sys/devices/nvme0"), disk.join("device")).expect("linked");
        let links = root.path().join("sys/dev/block");
        fs::create_dir_all(&links).expect("made");
        let (major, minor) = (libc::major(number), libc::minor(number));
        symlink(&disk, links.join(format!("{major}:{minor}"))).expect("linked");
        assert_eq!(ask(root.path(), &file), Err(DriveUnknown::NoNode));
        fs::create_dir(root.path().join("dev")).expect("made");
        fs::write(root.path().join("dev/nvme0"), "").expect("written");
        assert_eq!(ask(root.path(), &file), Err(DriveUnknown::Refused));
    }

    fn health(celsius: i32) -> DriveHealth {
        DriveHealth {
            warnings: DriveWarnings::new(0),
            celsius,
            spare_percent: 100,
            spare_threshold_percent: 10,
            used_percent: 1,
            bytes_read: 0,
            bytes_written: 0,
            power_cycles: 0,
            power_on_hours: 0,
            unsafe_shutdowns: 0,
            media_errors: 0,
            error_log_entries: 0,
        }
    }

    #[test]
    fn what_was_told_stays_while_the_drive_does_not_answer_and_no_longer() {
        let told = Seen::after(None, Ok(health(40)));
        let vitals = told.vitals().expect("told");
        assert_eq!((vitals.is_old, vitals.refusals), (false, 0));
        let silent = Seen::after(Some(told), Err(DriveUnknown::Refused));
        let vitals = silent.vitals().expect("told before");
        assert_eq!((vitals.is_old, vitals.refusals), (true, 1));
        assert_eq!(vitals.health, Some(health(40)));
        let other = Seen::after(Some(silent), Err(DriveUnknown::NoNvme));
        assert!(other.vitals().is_none());
        assert_eq!(other.unknown, DriveUnknown::NoNvme);
        let again = Seen::after(Some(silent), Ok(health(41)));
        assert!(!again.vitals().expect("told").is_old);
    }
}
