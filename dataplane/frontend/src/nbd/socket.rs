//! The file of a Unix socket.
//!
//! *Place*: under `server`. *Owner*: the server that listens; its file goes with it.
//! *Invariants*: only our own user can connect (mode 0600, and the directory, if we made it,
//! 0700). A socket that somebody listens at is never removed, nor is anything but a socket, nor
//! one that has replaced ours.
//! *On failure*: the error names the path.
//!
//! Two servers that start on one path at the same moment, over a stale socket, can both succeed;
//! the later one is then reachable. The file system calls here block, but only at start and stop.

use super::error::ServerError;
use crate::limit::PROBE_TIME_MAX;
use ogee_runtime::net::{UnixListener, UnixStream};
use ogee_runtime::timeout;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file of a socket that we listen at; removed when dropped.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that we recognise it.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Listens at `path`.
    pub(super) async fn listen(path: &Path) -> Result<(UnixListener, Self), ServerError> {
        let failed = |source| ServerError::Socket {
            path: path.to_owned(),
            source,
        };
        make_directory(path).map_err(failed)?;
        clear_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = Self {
            path: path.to_owned(),
            identity: identity(path),
        };
        // Until here others could connect if the directory lets them; accepting checks their uid.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok((listener, file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // What is left would be recognised as stale by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") && !parent.exists() => {
            DirBuilder::new().mode(0o700).create(parent)
        }
        _ => Ok(()),
    }
}

/// Removes a socket that nobody listens at.
async fn clear_stale(path: &Path) -> Result<(), ServerError> {
    let path_buf = || path.to_owned();
    let failed = |source| ServerError::Socket {
        path: path_buf(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServerError::NotASocket { path: path_buf() });
        }
        Ok(_) => {}
    }
    match timeout(PROBE_TIME_MAX, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removes a socket that nobody listens at");
            fs::remove_file(path).map_err(failed)
        }
        Ok(Err(error)) => Err(failed(error)),
        Ok(Ok(stream)) => {
            let pid = stream.peer_cred().map_err(failed)?.pid;
            let path = path_buf();
            Err(ServerError::InUse { path, pid })
        }
        Err(_elapsed) => Err(ServerError::InUseSilent { path: path_buf() }),
    }
}
