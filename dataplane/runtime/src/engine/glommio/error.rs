//! Translation of the engine's errors.
//!
//! **Place.** Used by all files of this engine. **Owner.** Stateless. **Invariants.** The system's
//! error code survives, so that the layers above can tell `ENOSPC` from `EIO`. **Failure.** None.

use std::io;

use ::glommio::GlommioError;

/// The plain I/O error inside, without the engine's decoration.
pub(super) fn into_io(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::from(other),
    }
}
