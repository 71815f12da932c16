//! The file.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic `OGEEMDSB` |
//! | 4 | version, little endian: what whoever reads the metadata must understand |
//! | 4 | length of the head |
//! | 4 | CRC32C of the head |
//! | … | head: JSON, says what it is of, and length and CRC32C of the body |
//! | … | body: the metadata in JSON, as in a snapshot of a metadata server |
//!
//! The head comes first so that a file can be told without reading all of it. *Torn write*: a file that
//! is cut short lacks bytes that the head counts; `ogee mds backup` renames only what it has read back.

use std::io::Read;

use ogee_proto::checksum::crc32c;
use serde::{Deserialize, Serialize};

use super::error::BackupError;
use crate::limit::BACKUP_MAX;
use crate::raft::Position;
use crate::state::{FIRST_VERSION, OUR_VERSION, State};

const MAGIC: [u8; 8] = *b"OGEEMDSB";
/// Bytes before the head.
const PREFIX: usize = 20;
const HEAD_MAX: usize = 64 << 10;

/// What a backup is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// Id of the cluster.
    pub cluster_id: String,
    /// Its name.
    pub cluster: String,
    /// The log entry that it is as of.
    pub applied: u64,
    /// Term of that entry.
    pub term: u64,
    /// Milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The metadata server that made it.
    pub member: u64,
    /// Version of that.
    pub version: String,
    /// For people: what is in it.
    pub pools: usize,
    /// Chunkservers.
    pub chunkservers: usize,
    /// Copysets.
    pub copysets: usize,
    /// Volumes.
    pub volumes: usize,
    /// Bytes of all volumes.
    pub volume_bytes: u64,
    /// Bytes of the metadata that follow.
    pub body_len: u64,
    /// CRC32C of those.
    pub body_crc32c: u32,
}

/// A backup that was read and found whole.
#[derive(Clone, Debug)]
pub struct Backup {
    pub(super) head: BackupHead,
    pub(super) state: State,
}

impl Backup {
    /// Reads and checks a whole backup.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(from: impl Read) -> Result<Self, BackupError> {
        let mut bytes = Vec::new();
        let read = from.take(BACKUP_MAX + 1).read_to_end(&mut bytes);
        read.map_err(BackupError::Read)?;
        if bytes.len() as u64 > BACKUP_MAX {
            return Err(BackupError::TooLong);
        }
        Self::decode(&bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, BackupError> {
        let (prefix, rest) = split(bytes, PREFIX)?;
        let (magic, numbers) = prefix.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(BackupError::NoBackup);
        }
        let (numbers, _) = numbers.as_chunks::<4>();
        let [version, head_len, head_crc] = *numbers else {
            return Err(BackupError::Short);
        };
        let [version, head_len, head_crc] = [version, head_len, head_crc].map(u32::from_le_bytes);
        if !(FIRST_VERSION..=OUR_VERSION).contains(&version) {
            return Err(BackupError::Version {
                found: version,
                ours: OUR_VERSION,
            });
        }
        let head_len = usize::try_from(head_len).unwrap_or(usize::MAX);
        if head_len > HEAD_MAX {
            return Err(BackupError::Damaged { what: "head" });
        }
        let (head, body) = split(rest, head_len)?;
        if crc32c(head) != head_crc {
            return Err(BackupError::Damaged { what: "head" });
        }
        let head: BackupHead = serde_json::from_slice(head).map_err(BackupError::Json)?;
        let len = body.len() as u64;
        if len < head.body_len {
            return Err(BackupError::Short);
        }
        if len > head.body_len || crc32c(body) != head.body_crc32c {
            return Err(BackupError::Damaged { what: "metadata" });
        }
        let state: State = serde_json::from_slice(body).map_err(BackupError::Json)?;
        if let Some(what) = state.contradiction() {
            return Err(BackupError::Contradiction { what });
        }
        Ok(Self { head, state })
    }

    /// What it is of.
    #[must_use]
    pub const fn head(&self) -> &BackupHead {
        &self.head
    }

    /// Names and sizes of the volumes in it.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, u64)> {
        let volumes = self.state.volumes_after("");
        volumes.map(|(_, volume)| (volume.name.as_str(), volume.size))
    }
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), BackupError> {
    bytes.split_at_checked(at).ok_or(BackupError::Short)
}

/// The metadata as of a place in the log, as a file's bytes.
///
/// # Errors
/// [`BackupError::NoCluster`] if it is nobody's yet.
pub(crate) fn encode(
    state: &State,
    at: Position,
    member: u64,
    now_ms: u64,
) -> Result<Vec<u8>, BackupError> {
    let cluster = state.cluster().ok_or(BackupError::NoCluster)?;
    let body = serde_json::to_vec(state).map_err(BackupError::Json)?;
    let sizes = state.volumes().values().map(|volume| volume.size);
    let head = BackupHead {
        cluster_id: cluster.id.to_string(),
        cluster: cluster.name.to_string(),
        applied: at.index,
        term: at.term,
        created_unix_ms: now_ms,
        member,
        version: env!("CARGO_PKG_VERSION").into(),
        pools: state.pools().len(),
        chunkservers: state.chunkservers().len(),
        copysets: state.copysets().len(),
        volumes: state.volumes().len(),
        volume_bytes: sizes.fold(0, u64::saturating_add),
        body_len: body.len() as u64,
        body_crc32c: crc32c(&body),
    };
    let head = serde_json::to_vec(&head).map_err(BackupError::Json)?;
    let head_len = u32::try_from(head.len()).map_err(|_| BackupError::TooLong)?;
    let mut bytes = Vec::with_capacity(PREFIX + head.len() + body.len());
    bytes.extend(MAGIC);
    bytes.extend(state.version().to_le_bytes());
    bytes.extend(head_len.to_le_bytes());
    bytes.extend(crc32c(&head).to_le_bytes());
    bytes.extend(head);
    bytes.extend(body);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Backup, BackupError, PREFIX, encode};
    use crate::raft::Position;
    use crate::state::{Command, InitCluster, State};
    use ogee_proto::name::Name;
    use uuid::Uuid;

    fn state() -> State {
        let mut state = State::default();
        let init = InitCluster {
            id: Uuid::from_u128(7),
            name: Name::new("c").unwrap(),
        };
        state.apply(&Command::InitCluster(init)).unwrap();
        state
    }

    fn file() -> Vec<u8> {
        let at = Position { term: 3, index: 42 };
        encode(&state(), at, 2, 1000).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let backup = Backup::read(file().as_slice()).unwrap();
        let head = backup.head();
        assert_eq!((head.applied, head.term, head.member), (42, 3, 2));
        assert_eq!(head.cluster_id, Uuid::from_u128(7).to_string());
        assert!(backup.state == state());
    }

    #[test]
    fn no_byte_may_differ_or_be_missing() {
        let whole = file();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert!(Backup::read(bytes.as_slice()).is_err(), "byte {at}");
            assert!(Backup::read(&whole[..at]).is_err(), "cut at {at}");
        }
        let mut longer = whole.clone();
        longer.push(b' ');
        assert!(Backup::read(longer.as_slice()).is_err());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = file();
        bytes[8] = 9;
        let error = Backup::read(bytes.as_slice()).unwrap_err();
        assert!(matches!(
            error,
            BackupError::Version {
                found: 9,
                ours: crate::state::OUR_VERSION
            }
        ));
        assert!(bytes.len() > PREFIX);
    }

    #[test]
    fn metadata_of_no_cluster_is_no_backup() {
        let error = encode(&State::default(), Position::default(), 1, 0).unwrap_err();
        assert!(matches!(error, BackupError::NoCluster));
    }
}
