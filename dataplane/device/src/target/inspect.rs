//! Resolves a path, checks what stands there and claims it.

use super::claim::Claim;
use super::{OpenOptions, mount};
use crate::error::DeviceError;
use crate::limit::IO_ALIGNMENT;
use ogee_proto::unit::ByteLen;
use std::fs::{self, File, FileType};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A checked and claimed path.
#[derive(Debug)]
pub(crate) struct Target {
    /// Without symbolic links, so that a link moved later changes nothing.
    pub(crate) path: PathBuf,
    pub(crate) len: ByteLen,
    pub(crate) claim: Claim,
}

impl Target {
    /// Checks `path` and claims what stands there.
    ///
    /// It is async only because the simulator's counterpart is.
    #[expect(clippy::unused_async, reason = "same form as in the simulator")]
    pub(crate) async fn claim(path: &Path, options: OpenOptions) -> Result<Self, DeviceError> {
        if let Some(len) = options.create {
            create(path, len)?;
        }
        let resolved = resolve(path)?;
        let metadata = fs::metadata(&resolved).map_err(|error| DeviceError::open(path, error))?;
        let is_block = check_kind(path, metadata.file_type())?;
        if is_block {
            mount::refuse_mounted(path, metadata.rdev())?;
        }
        let mut claim = Claim::take(path, &resolved, is_block)?;
        let len = claim
            .len()
            .map_err(|error| DeviceError::open(path, error))?;
        check_len(path, len, options.create)?;
        Ok(Self {
            path: resolved,
            len,
            claim,
        })
    }
}

/// Makes a sparse file if there is none, and makes its name durable.
fn create(path: &Path, len: ByteLen) -> Result<(), DeviceError> {
    check_len(path, len, None)?;
    match File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(file) => fill(&file, path, len).map_err(|error| {
            // The name is ours and nothing is in it. The first error is the one worth telling.
            let _ = fs::remove_file(path);
            DeviceError::open(path, error)
        }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(DeviceError::open(path, error)),
    }
}

fn fill(file: &File, path: &Path, len: ByteLen) -> io::Result<()> {
    file.set_len(len.get())?;
    file.sync_all()?;
    match path.parent() {
        Some(parent) if parent != Path::new("") => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn resolve(path: &Path) -> Result<PathBuf, DeviceError> {
    fs::canonicalize(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DeviceError::Missing { path: path.into() },
        _ => DeviceError::open(path, error),
    })
}

/// Whether it is a block device; anything but that or a file is refused.
fn check_kind(path: &Path, kind: FileType) -> Result<bool, DeviceError> {
    if kind.is_dir() {
        return Err(DeviceError::Directory { path: path.into() });
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DeviceError::Kind { path: path.into() });
    }
    Ok(kind.is_block_device())
}

fn check_len(path: &Path, len: ByteLen, wanted: Option<ByteLen>) -> Result<(), DeviceError> {
    if len == ByteLen::ZERO || !len.is_multiple_of(IO_ALIGNMENT) {
        return Err(DeviceError::Size {
            path: path.into(),
            len,
        });
    }
    match wanted {
        Some(wanted) if wanted != len => Err(DeviceError::SizeDiffers {
            path: path.into(),
            found: len,
            wanted,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{OpenOptions, Target};
    use crate::error::DeviceError;
    use ogee_proto::unit::ByteLen;
    use std::future::Future;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::pin::pin;
    use std::process;
    use std::task::{Context, Poll, Waker};

    const LEN: ByteLen = ByteLen::new(64 << 10);

    /// Nothing in it waits, so one poll does.
    fn claim_with(path: &Path, options: OpenOptions) -> Result<Target, DeviceError> {
        let claim = pin!(Target::claim(path, options));
        match claim.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("claiming does not wait"),
        }
    }

    fn claim(path: &Path) -> Result<Target, DeviceError> {
        claim_with(path, OpenOptions::default())
    }

    fn create(path: &Path, len: ByteLen) -> Result<Target, DeviceError> {
        claim_with(path, OpenOptions { create: Some(len) })
    }

    #[test]
    fn missing_path_is_named_with_the_remedy() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("none");
        let error = claim(&path).expect_err("nothing there");
        assert!(
            matches!(&error, DeviceError::Missing { path: p } if *p == path),
            "{error}"
        );
        assert!(
            error.to_string().contains("create the file with a size"),
            "{error}"
        );
        assert!(!path.exists(), "looking creates nothing");
    }

    #[test]
    fn directory_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let error = claim(dir.path()).expect_err("a directory");
        assert!(matches!(error, DeviceError::Directory { .. }), "{error}");
        let error = create(dir.path(), LEN).expect_err("a directory still");
        assert!(matches!(error, DeviceError::Directory { .. }), "{error}");
    }

    #[test]
    fn character_device_is_refused() {
        let error = claim(Path::new("/dev/null")).expect_err("not a disk");
        assert!(matches!(error, DeviceError::Kind { .. }), "{error}");
    }

    #[test]
    fn length_must_be_whole_blocks() {
        let dir = tempfile::tempdir().expect("tempdir");
        for len in [0usize, 1, 4095, 4097, 10_000] {
            let path = dir.path().join(len.to_string());
            std::fs::write(&path, vec![0; len]).expect("write");
            let error = claim(&path).expect_err("ragged");
            let expected = ByteLen::from_usize(len);
            assert!(
                matches!(error, DeviceError::Size { len, .. } if len == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn create_makes_the_file_once_and_keeps_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("disk");
        assert_eq!(create(&path, LEN).expect("created").len, LEN);
        assert_eq!(create(&path, LEN).expect("there already").len, LEN);
        assert_eq!(claim(&path).expect("plain open").len, LEN);
        let double = ByteLen::new(LEN.get() * 2);
        let error = create(&path, double).expect_err("another size");
        assert!(
            matches!(error, DeviceError::SizeDiffers { found, wanted, .. }
                if found == LEN && wanted == double),
            "{error}"
        );
        assert_eq!(std::fs::metadata(&path).expect("metadata").len(), LEN.get());
    }

    #[test]
    fn create_refuses_a_ragged_length_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("disk");
        let error = create(&path, ByteLen::new(5000)).expect_err("ragged");
        assert!(matches!(error, DeviceError::Size { .. }), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn a_second_claim_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("disk");
        let first = create(&path, LEN).expect("first");
        let error = claim(&path).expect_err("second");
        let ours = process::id();
        assert!(
            matches!(&error, DeviceError::InUse { path: p, holder: Some(pid) }
                if *p == path && *pid == ours),
            "{error}"
        );
        drop(first);
        claim(&path).expect("given up");
    }

    /// The claim is on the file, not on the name.
    #[test]
    fn a_claim_holds_under_every_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (path, link) = (dir.path().join("disk"), dir.path().join("link"));
        let first = create(&path, LEN).expect("first");
        symlink(&path, &link).expect("symlink");
        let error = claim(&link).expect_err("same file");
        assert!(
            matches!(&error, DeviceError::InUse { path: p, .. } if *p == link),
            "{error}"
        );
        drop(first);
        let target = claim(&link).expect("given up");
        assert_eq!(target.path, path.canonicalize().expect("canonical"));
    }
}
