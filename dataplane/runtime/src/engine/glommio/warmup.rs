//! Teaches the engine the truth about a device before the first real file is opened on it.
//!
//! **Place.** Called by `file` at every open. **Owner.** One set of known devices per thread, as the
//! engine keeps its own table per thread.
//!
//! **Invariants.** The engine finds out whether a device supports polled I/O by reading the first
//! block of the first file opened there. On an empty or sparse file that read succeeds without
//! reaching the device, and every later direct read fails with `EOPNOTSUPP`. So the first file is
//! always an unnamed one with a real block in it.
//!
//! **Failure.** Where no unnamed file can be made (read-only or exotic file system) the probe falls
//! on the target itself, which is right unless that is empty.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::limit::BUFFER_ALIGNMENT;

thread_local! {
    static KNOWN_DEVICES: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
}

/// A block device or a directory, by the number under which the engine files it.
struct Site {
    device: u64,
    /// Where an unnamed file goes; `None` for a block device, which is never empty.
    directory: Option<PathBuf>,
}

/// Makes it safe to open `path` with direct I/O on this executor.
pub(super) async fn prepare(path: &Path) -> io::Result<()> {
    let path = path.to_owned();
    let executor = ::glommio::executor();
    let site = executor.spawn_blocking(move || locate(&path)).await?;
    let is_known = KNOWN_DEVICES.with_borrow(|known| known.contains(&site.device));
    if let (false, Some(directory)) = (is_known, site.directory) {
        let made = executor
            .spawn_blocking(move || make_unnamed(&directory))
            .await;
        match made {
            Ok(file) => probe(&file).await?,
            Err(error) => tracing::warn!(%error, "no unnamed file for the direct I/O probe"),
        }
    }
    KNOWN_DEVICES.with_borrow_mut(|known| known.insert(site.device));
    Ok(())
}

fn locate(path: &Path) -> io::Result<Site> {
    if let Ok(metadata) = fs::metadata(path)
        && metadata.file_type().is_block_device()
    {
        return Ok(Site {
            device: metadata.dev(),
            directory: None,
        });
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok(Site {
        device: fs::metadata(&directory)?.dev(),
        directory: Some(directory),
    })
}

/// A file without a name, gone with its descriptor, holding one block that is really on the device.
fn make_unnamed(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o600)
        .open(directory)?;
    file.write_all(&[0x5a; BUFFER_ALIGNMENT])?;
    file.sync_data()?;
    Ok(file)
}

async fn probe(file: &File) -> io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = ::glommio::io::OpenOptions::new()
        .read(true)
        .dma_open(path)
        .await;
    opened
        .map_err(super::error::into_io)?
        .close()
        .await
        .map_err(super::error::into_io)
}
