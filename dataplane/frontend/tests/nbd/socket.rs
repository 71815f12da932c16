//! The file of the socket: made, refused, replaced, removed.

use crate::served::{Local, exports};
use ogee_frontend::MemoryDisk;
use ogee_frontend::SocketError;
use ogee_frontend::nbd::{Address, Server, ServerError};
use ogee_proto::unit::ByteLen;
use ogee_runtime::executor::block_on;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

async fn bind(path: &Path) -> Result<Server, ServerError> {
    let disk = MemoryDisk::new(ByteLen::new(4096));
    Server::bind(Address::Unix(path.to_owned()), exports(&disk)).await
}

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).expect("it exists");
    found.permissions().mode() & 0o777
}

#[test]
fn only_our_user_may_connect() {
    block_on(async {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("new").join("nbd.sock");
        let _server = bind(&path).await.expect("a free path");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("new")), 0o700);
    });
}

#[test]
fn a_stale_socket_is_replaced() {
    block_on(async {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("nbd.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
        assert!(path.exists());
        bind(&path).await.expect("nobody listens").stop().await;
        assert!(!path.exists());
    });
}

#[test]
fn a_live_socket_is_refused_and_its_owner_named() {
    block_on(async {
        let local = Local::new(4096).await;
        match bind(&local.path).await {
            Err(ServerError::Socket(SocketError::InUse { path, pid })) => {
                assert_eq!(path, local.path);
                assert_eq!(pid.unsigned_abs(), std::process::id());
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two servers at one path"),
        }
        assert!(local.path.exists(), "it is still there");
    });
}

#[test]
fn what_is_no_socket_is_left_alone() {
    block_on(async {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("nbd.sock");
        fs::write(&path, "precious").expect("a file");
        let refused = bind(&path).await.err().expect("a refusal");
        assert!(matches!(
            refused,
            ServerError::Socket(SocketError::NotASocket { .. })
        ));
        assert_eq!(fs::read(&path).expect("the file"), b"precious");
    });
}

#[test]
fn a_file_that_replaced_ours_is_left_alone() {
    block_on(async {
        let local = Local::new(4096).await;
        fs::rename(&local.path, local.dir.path().join("old")).expect("a rename");
        fs::write(&local.path, "another's").expect("a file");
        local.server.stop().await;
        assert_eq!(fs::read(&local.path).expect("the file"), b"another's");
    });
}
