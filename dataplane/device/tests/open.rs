//! Opening real files and block devices, as a user of the crate sees it.

use ogee_device::limit::{IO_ALIGNMENT, IO_LEN_MAX};
use ogee_device::{Device, DeviceError, OpenOptions};
use ogee_proto::unit::{ByteLen, ByteOffset};
use ogee_runtime::{Buffer, executor};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const LEN: ByteLen = ByteLen::new(16 << 20);
const START: ByteOffset = ByteOffset::ZERO;

fn open(path: &Path) -> Result<Device, DeviceError> {
    executor::block_on(Device::open(path, OpenOptions::default()))
}

#[test]
fn a_device_has_one_user_at_a_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("disk");
    executor::block_on(async {
        let create = OpenOptions { create: Some(LEN) };
        let device = Device::open(&path, create).await.expect("fresh");
        assert_eq!(
            (device.name(), device.len()),
            (path.to_str().expect("text"), LEN)
        );
        let clone = device.clone();
        drop(device);
        let error = Device::open(&path, create)
            .await
            .expect_err("the clone still holds it");
        assert!(matches!(error, DeviceError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(clone.name()), "{error}");
        drop(clone);
        let mut again = Device::open(&path, create).await;
        // A test beside this one that starts a program has a copy of every descriptor for a moment.
        for _ in 0..200 {
            if !matches!(again, Err(DeviceError::InUse { .. })) {
                break;
            }
            ogee_runtime::sleep(std::time::Duration::from_millis(10)).await;
            again = Device::open(&path, create).await;
        }
        again.expect("given up");
    });
}

#[test]
fn a_request_has_a_largest_length() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("disk");
    let create = OpenOptions {
        create: Some(ByteLen::from_usize(2 * IO_LEN_MAX)),
    };
    executor::block_on(async {
        let device = Device::open(&path, create).await.expect("fresh");
        let longest = ByteLen::from_usize(IO_LEN_MAX);
        assert_eq!(
            device.read(START, longest).await.expect("the limit").len(),
            IO_LEN_MAX
        );
        let too_long = ByteLen::from_usize(IO_LEN_MAX + IO_ALIGNMENT);
        let error = device
            .read(START, too_long)
            .await
            .expect_err("past the limit");
        assert!(
            matches!(error, DeviceError::Length { len, .. } if len == too_long),
            "{error}"
        );
        device
            .discard(START, too_long)
            .await
            .expect("a discard carries no data");
    });
}

/// A file that shrinks under us: the device's length was fixed at open, the system says no.
#[test]
fn a_file_cut_behind_our_back_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("disk");
    executor::block_on(async {
        let create = OpenOptions { create: Some(LEN) };
        let device = Device::open(&path, create).await.expect("fresh");
        File::options()
            .write(true)
            .open(&path)
            .expect("open")
            .set_len(4096)
            .expect("cut");
        let error = device
            .read(ByteOffset::new(4096), ByteLen::new(4096))
            .await
            .expect_err("beyond");
        assert!(matches!(error, DeviceError::Io { .. }), "{error}");
        assert_eq!(device.counters().failures, 1);
    });
}

/// A loop device over a file, detached when the test ends.
struct LoopDevice {
    node: PathBuf,
    mounted: Option<PathBuf>,
}

impl LoopDevice {
    fn attach(file: &Path) -> Self {
        let found = run(
            "losetup",
            &["--find", "--show", file.to_str().expect("text")],
        );
        Self {
            node: found.trim().into(),
            mounted: None,
        }
    }

    fn format_and_mount(&mut self, point: &Path) {
        let node = self.node.to_str().expect("text");
        run("mkfs.ext4", &["-q", "-F", node]);
        fs::create_dir(point).expect("mount point");
        run("mount", &[node, point.to_str().expect("text")]);
        self.mounted = Some(point.to_owned());
    }

    fn unmount(&mut self) {
        if let Some(point) = self.mounted.take() {
            run("umount", &[point.to_str().expect("text")]);
        }
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        self.unmount();
        run("losetup", &["--detach", self.node.to_str().expect("text")]);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect(program);
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn block_devices_are_claimed_and_mounted_ones_refused() {
    // SAFETY: no arguments, no failure.
    let is_root = unsafe { libc::geteuid() } == 0;
    if !is_root || !Path::new("/dev/loop-control").exists() {
        // Not by a macro: those are captured, and a skip is to be counted.
        let text = b"SKIP block devices: needs root and loop devices\n";
        std::io::stderr().write_all(text).expect("stderr");
        return;
    }
    let dir = tempfile::tempdir().expect("tempdir");
    let file = dir.path().join("backing");
    File::create(&file)
        .expect("create")
        .set_len(LEN.get())
        .expect("length");
    let mut disk = LoopDevice::attach(&file);
    let node = disk.node.clone();

    let point = dir.path().join("mount point");
    disk.format_and_mount(&point);
    let error = open(&node).expect_err("mounted");
    assert!(
        matches!(&error, DeviceError::Mounted { path, mount_point }
            if *path == node && *mount_point == point),
        "{error}"
    );
    disk.unmount();

    let exclusive = File::options()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(&node)
        .expect("claim");
    let error = open(&node).expect_err("claimed in the kernel");
    assert!(
        matches!(&error, DeviceError::Busy { path } if *path == node),
        "{error}"
    );
    drop(exclusive);

    executor::block_on(use_block_device(&node));
}

async fn use_block_device(node: &Path) {
    let options = OpenOptions { create: Some(LEN) };
    let device = Device::open(node, options)
        .await
        .expect("free, and of that size");
    assert_eq!(device.len(), LEN);
    let error = Device::open(node, options)
        .await
        .expect_err("claimed by us");
    assert!(
        matches!(
            error,
            DeviceError::InUse {
                holder: Some(_),
                ..
            }
        ),
        "{error}"
    );
    let mut data = Buffer::zeroed(8192);
    data.fill(7);
    device
        .write_durable(START, data)
        .await
        .expect("durable write");
    device
        .discard(START, ByteLen::new(4096))
        .await
        .expect("discard");
    device.flush().await.expect("flush");
    let found = device.read(START, ByteLen::new(8192)).await.expect("read");
    let (first, second) = found.split_at(4096);
    assert!(first.iter().all(|byte| *byte == 0) && second.iter().all(|byte| *byte == 7));
}
