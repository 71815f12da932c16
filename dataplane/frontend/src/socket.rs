//! The file of a Unix socket.
//!
//! *Place*: under the servers of all protocols. *Owner*: the server that listens; its file goes with it.
//! *Invariants*: only our own user can connect (mode 0600, and the directory, if we made it,
//! 0700), unless the operator has named another owner or mode. A socket that somebody listens at is never removed, nor is anything but a socket, nor
//! one that has replaced ours.
//! *On failure*: the error names the path.
//!
//! Two servers that start on one path at the same moment, over a stale socket, can both succeed;
//! the later one is then reachable. The file system calls here block, but only at start and stop.

use crate::limit::PROBE_TIME_MAX;
use nix::unistd::geteuid;
use ogee_runtime::net::{PeerCredentials, UnixListener, UnixStream};
use ogee_runtime::timeout;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// Who may use a socket's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketAccess {
    /// Its mode. Whoever may write it may connect.
    pub mode: u32,
    /// Its user; none: ours.
    pub uid: Option<u32>,
    /// Its group; none: ours.
    pub gid: Option<u32>,
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: 0o600,
            uid: None,
            gid: None,
        }
    }
}

impl SocketAccess {
    /// Mode of a directory for such sockets. It stays ours, whoever gets the sockets: they may pass, not look around or
    /// replace anything.
    #[must_use]
    pub fn directory_mode(self) -> u32 {
        match self == Self::default() {
            true => 0o700,
            false => 0o711,
        }
    }

    /// Whether a peer may be served: our own user, root, and who was named. Says so in the log if not.
    pub(crate) fn admits(self, peer: PeerCredentials) -> bool {
        let PeerCredentials { pid, uid, gid } = peer;
        let ours = geteuid().as_raw();
        let is_in_group = self.mode & 0o020 != 0 && self.gid == Some(gid);
        let is_admitted = uid == ours || uid == 0 || self.uid == Some(uid) || is_in_group;
        if !is_admitted {
            tracing::warn!(pid, uid, ours, "refuses a client of another user");
        }
        is_admitted
    }
}

/// Why a socket's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens there.
    #[error("{path} is in use by process {pid}: stop it, or choose another path")]
    InUse {
        /// The socket's file.
        path: PathBuf,
        /// Who listens.
        pid: i32,
    },
    /// Another process listens there, but does not answer.
    #[error("{path} is in use by a process that does not answer: stop it, or choose another path")]
    InUseSilent {
        /// The socket's file.
        path: PathBuf,
    },
    /// Something else than a socket is in the way.
    #[error("{path} exists and is not a socket: it is not ours to remove")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The socket's file cannot be made, inspected or removed.
    #[error("cannot use {path} as a socket")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Of the system.
        source: io::Error,
    },
}

/// The file of a socket that we listen at; removed when dropped.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode, so that we recognise it.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    /// Listens at `path`.
    pub(crate) async fn listen(
        path: &Path,
        access: SocketAccess,
    ) -> Result<(UnixListener, Self), SocketError> {
        let failed = |source| SocketError::Unusable {
            path: path.to_owned(),
            source,
        };
        make_directory(path, access).map_err(failed)?;
        if access != SocketAccess::default() {
            check_directory(path).map_err(failed)?;
        }
        clear_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = Self {
            path: path.to_owned(),
            identity: identity(path),
        };
        // Until here others could connect if the directory lets them; accepting checks their uid.
        fs::set_permissions(path, Permissions::from_mode(access.mode)).map_err(failed)?;
        give(path, access).map_err(failed)?;
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

fn make_directory(path: &Path, access: SocketAccess) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent != Path::new("") && !parent.exists() => {
            let mode = access.directory_mode();
            DirBuilder::new().mode(mode).create(parent)
        }
        _ => Ok(()),
    }
}

/// Whether nobody else can put something else in the place of our socket before it is handed over.
fn check_directory(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let found = fs::metadata(parent)?;
    let is_ours = found.uid() == 0 || found.uid() == geteuid().as_raw();
    let others_write = found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0;
    if is_ours && !others_write {
        return Ok(());
    }
    let (uid, mode) = (found.uid(), found.mode() & 0o7777);
    let text = format!(
        "{} belongs to user {uid}, mode {mode:o}: whoever writes it could have us hand over another file. Use a \
         directory of our own that nobody else writes",
        parent.display()
    );
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// Hands a file over to who was named.
fn give(path: &Path, access: SocketAccess) -> io::Result<()> {
    match (access.uid, access.gid) {
        (None, None) => Ok(()),
        (uid, gid) => lchown(path, uid, gid),
    }
}

/// Removes a socket that nobody listens at.
async fn clear_stale(path: &Path) -> Result<(), SocketError> {
    let path_buf = || path.to_owned();
    let failed = |source| SocketError::Unusable {
        path: path_buf(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path_buf() });
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
            Err(SocketError::InUse { path, pid })
        }
        Err(_elapsed) => Err(SocketError::InUseSilent { path: path_buf() }),
    }
}
