//! Files: on a real file system with direct I/O, or in the simulator's memory.

use std::io::ErrorKind;
use std::path::Path;

use ogee_runtime::Buffer;
use ogee_runtime::executor::block_on;
use ogee_runtime::file::{DmaFile, OpenOptions, Unaligned};

const CREATE: OpenOptions = OpenOptions {
    create: true,
    dsync: false,
    read_only: false,
};

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a scratch directory")
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|index| u8::try_from(index % 251).expect("below 251") ^ seed)
        .collect()
}

async fn create(directory: &Path, name: &str) -> DmaFile {
    DmaFile::open(directory.join(name), CREATE)
        .await
        .expect("a file with direct I/O")
}

#[test]
fn what_is_written_is_read() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        for (offset, len) in [(0, 4096), (8192, 512), (1 << 20, 1 << 20)] {
            let data = pattern(len, 3);
            file.write_at(offset, Buffer::copy_from(&data))
                .await
                .unwrap();
            assert_eq!(&*file.read_at(offset, len).await.unwrap(), data);
        }
        assert_eq!(file.len().await.unwrap(), 2 << 20);
        let hole = file.read_at(4096, 4096).await.unwrap();
        assert!(hole.iter().all(|byte| *byte == 0));
        let part = file.read_at(0, 4096).await.unwrap().slice(10..20);
        assert_eq!(&*part, &pattern(4096, 3)[10..20]);
    });
}

#[test]
fn content_outlives_the_descriptor() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        file.write_at(0, Buffer::copy_from(&pattern(4096, 1)))
            .await
            .unwrap();
        file.fdatasync().await.unwrap();
        drop(file);
        let options = OpenOptions {
            read_only: true,
            ..OpenOptions::default()
        };
        let file = DmaFile::open(directory.path().join("file"), options)
            .await
            .unwrap();
        assert_eq!(&*file.read_at(0, 4096).await.unwrap(), pattern(4096, 1));
        assert!(file.write_at(0, Buffer::zeroed(4096)).await.is_err());
    });
}

#[test]
fn a_missing_file_is_not_created_unasked() {
    let directory = scratch();
    block_on(async {
        let path = directory.path().join("missing");
        let error = DmaFile::open(path, OpenOptions::default())
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_read_past_the_end_is_an_error() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        file.write_at(0, Buffer::zeroed(4096)).await.unwrap();
        let error = file.read_at(0, 8192).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn unaligned_requests_are_refused_before_the_device() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        let error = file.read_at(100, 4096).await.unwrap_err();
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<Unaligned>());
        assert_eq!(
            cause,
            Some(&Unaligned {
                offset: 100,
                len: 4096
            })
        );
        assert!(file.write_at(0, Buffer::zeroed(100)).await.is_err());
        assert!(file.discard(0, 1).await.is_err());
    });
}

#[test]
fn discarded_ranges_read_as_zeros() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        file.write_at(0, Buffer::copy_from(&pattern(16_384, 9)))
            .await
            .unwrap();
        file.discard(4096, 8192).await.unwrap();
        let data = file.read_at(0, 16_384).await.unwrap();
        assert_eq!(&data[..4096], &pattern(16_384, 9)[..4096]);
        assert!(data[4096..12_288].iter().all(|byte| *byte == 0));
        assert_eq!(&data[12_288..], &pattern(16_384, 9)[12_288..]);
        assert_eq!(file.len().await.unwrap(), 16_384);
    });
}

#[test]
fn preallocation_writes_zeros_and_reports_progress() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        file.write_at(0, Buffer::copy_from(&pattern(8192, 5)))
            .await
            .unwrap();
        let mut reports = Vec::new();
        let len = (2 << 20) + 4096;
        file.preallocate_zeroed(4096, len, |done| reports.push(done))
            .await
            .unwrap();
        assert_eq!(reports, [1 << 20, 2 << 20, len]);
        assert_eq!(file.len().await.unwrap(), 4096 + len);
        assert_eq!(
            &*file.read_at(0, 4096).await.unwrap(),
            &pattern(8192, 5)[..4096]
        );
        let zeros = file.read_at(4096, 1 << 20).await.unwrap();
        assert!(zeros.iter().all(|byte| *byte == 0));
    });
    #[cfg(not(ogee_sim))]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(directory.path().join("file")).unwrap();
        assert!(
            metadata.blocks() * 512 >= metadata.len(),
            "the file has holes"
        );
    }
}

#[test]
fn many_requests_are_in_flight_at_once() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        // More than the ring holds.
        let writes: Vec<_> = (0..300_u64)
            .map(|block| {
                let file = file.clone();
                let data = Buffer::copy_from(&pattern(4096, u8::try_from(block % 256).unwrap()));
                ogee_runtime::spawn(async move { file.write_at(block * 4096, data).await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        for block in 0..300_u64 {
            let data = file.read_at(block * 4096, 4096).await.unwrap();
            assert_eq!(&*data, pattern(4096, u8::try_from(block % 256).unwrap()));
        }
    });
}

#[test]
fn a_request_that_is_dropped_harms_no_other() {
    let directory = scratch();
    block_on(async {
        let file = create(directory.path(), "file").await;
        file.write_at(0, Buffer::zeroed(1 << 20)).await.unwrap();
        for _ in 0..50 {
            let abandoned = ogee_runtime::spawn_scoped({
                let file = file.clone();
                async move { file.read_at(0, 1 << 20).await }
            });
            ogee_runtime::yield_now().await;
            drop(abandoned);
            file.write_at(4096, Buffer::copy_from(&pattern(4096, 7)))
                .await
                .unwrap();
            assert_eq!(&*file.read_at(4096, 4096).await.unwrap(), pattern(4096, 7));
        }
    });
}

#[cfg(not(ogee_sim))]
mod real {
    use super::*;

    /// They take another way than files on a disk.
    #[test]
    fn a_file_in_memory_is_read_and_written() {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        block_on(async {
            let file = match DmaFile::open(directory.path().join("file"), CREATE).await {
                // Kernels before 6.6 refuse direct I/O there.
                Err(error) if error.kind() == ErrorKind::Unsupported => return,
                opened => opened.unwrap(),
            };
            let other = ogee_runtime::spawn(async { 7 });
            let data = pattern(1 << 20, 5);
            file.write_at(4096, Buffer::copy_from(&data)).await.unwrap();
            assert!(other.is_finished(), "a write lets others run");
            assert_eq!(&*file.read_at(4096, 1 << 20).await.unwrap(), data);
            file.discard(8192, 4096).await.unwrap();
            assert_eq!(&*file.read_at(8192, 4096).await.unwrap(), [0; 4096]);
            let past = file.read_at(1 << 20, 1 << 20).await.unwrap_err();
            assert_eq!(past.kind(), ErrorKind::UnexpectedEof);
            file.fdatasync().await.unwrap();
        });
    }

    /// Flags of the descriptor that this process has open on `path`.
    fn open_flags(path: &Path) -> i32 {
        for entry in std::fs::read_dir("/proc/self/fd")
            .expect("procfs")
            .flatten()
        {
            if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
                let number = entry.file_name().into_string().expect("procfs");
                let info =
                    std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("procfs");
                let flags = info
                    .lines()
                    .find_map(|line| line.strip_prefix("flags:"))
                    .expect("procfs");
                return i32::from_str_radix(flags.trim(), 8).expect("procfs");
            }
        }
        panic!("{} is not open", path.display());
    }

    #[test]
    fn descriptors_carry_direct_and_dsync() {
        let directory = scratch();
        let plain = directory.path().canonicalize().unwrap().join("plain");
        let durable = directory.path().canonicalize().unwrap().join("durable");
        block_on(async {
            let _plain = DmaFile::open(&plain, CREATE).await.unwrap();
            let options = OpenOptions {
                dsync: true,
                ..CREATE
            };
            let _durable = DmaFile::open(&durable, options).await.unwrap();
            assert_eq!(open_flags(&plain) & libc::O_DIRECT, libc::O_DIRECT);
            assert_eq!(open_flags(&plain) & libc::O_DSYNC, 0);
            let both = libc::O_DIRECT | libc::O_DSYNC;
            assert_eq!(open_flags(&durable) & both, both);
        });
    }

    #[test]
    fn a_file_system_without_direct_io_is_named() {
        block_on(async {
            let options = OpenOptions {
                read_only: true,
                ..OpenOptions::default()
            };
            let error = DmaFile::open("/proc/self/status", options)
                .await
                .err()
                .unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(
                text.contains("/proc/self/status") && text.contains("ext4"),
                "{text}"
            );
        });
    }

    #[test]
    fn a_closed_file_gives_its_descriptor_back() {
        let directory = scratch();
        let path = directory.path().canonicalize().unwrap().join("file");
        block_on(async {
            drop(DmaFile::open(&path, CREATE).await.unwrap());
            drop(ogee_runtime::spawn({
                let path = path.clone();
                async move {
                    let _kept = DmaFile::open(&path, CREATE).await.unwrap();
                    std::future::pending::<()>().await;
                }
            }));
            ogee_runtime::sleep(std::time::Duration::from_millis(20)).await;
        });
        let targets = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let is_open = targets
            .filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|target| target == path);
        assert!(!is_open, "the executor left {} open", path.display());
    }
}
