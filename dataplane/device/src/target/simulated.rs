//! The simulator's files live in its memory: there is nothing to lock and nothing is mounted.

use super::OpenOptions;
use crate::error::DeviceError;
use crate::limit::IO_ALIGNMENT;
use ogee_proto::unit::ByteLen;
use ogee_runtime::file::{DmaFile, OpenOptions as FileOptions};
use std::path::{Path, PathBuf};

/// Nothing.
#[derive(Debug)]
pub(crate) struct Claim;

/// A file of the simulator.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) len: ByteLen,
    pub(crate) claim: Claim,
}

impl Target {
    /// Opens or creates the file and looks at its length.
    pub(crate) async fn claim(path: &Path, options: OpenOptions) -> Result<Self, DeviceError> {
        let open_error = |error| DeviceError::open(path, error);
        let create = options.create.is_some();
        let mode = FileOptions {
            create,
            ..FileOptions::default()
        };
        let file = DmaFile::open(path, mode).await.map_err(open_error)?;
        let mut len = ByteLen::new(file.len().await.map_err(open_error)?);
        if let (ByteLen::ZERO, Some(wanted)) = (len, options.create) {
            file.set_len(wanted.get()).await.map_err(open_error)?;
            len = wanted;
        }
        if len == ByteLen::ZERO || !len.is_multiple_of(IO_ALIGNMENT) {
            return Err(DeviceError::Size {
                path: path.into(),
                len,
            });
        }
        match options.create {
            Some(wanted) if wanted != len => Err(DeviceError::SizeDiffers {
                path: path.into(),
                found: len,
                wanted,
            }),
            _ => Ok(Self {
                path: path.into(),
                len,
                claim: Claim,
            }),
        }
    }
}
