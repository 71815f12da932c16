//! Whether a volume still takes requests.
//!
//! *Place*: checked before each request and before each attempt.
//! *Owner*: the shard of the volume.
//! *Invariants*: open → closed or fenced, never back; fenced wins over closed.
//! *On failure*: this *is* the failure: a fenced volume answers nothing but `Fenced`.

use crate::error::ClientError;
use ogee_proto::id::{Epoch, VolumeId};
use std::cell::Cell;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Fenced,
}

/// The life of one attachment.
pub(crate) struct Life {
    volume: VolumeId,
    epoch: Epoch,
    state: Cell<State>,
}

impl Life {
    /// A volume just attached.
    pub(crate) const fn new(volume: VolumeId, epoch: Epoch) -> Self {
        Self {
            volume,
            epoch,
            state: Cell::new(State::Open),
        }
    }

    /// A copyset has sealed a newer attachment: the end.
    pub(crate) fn fence(&self) {
        if self.state.replace(State::Fenced) != State::Fenced {
            tracing::error!(
                volume = %self.volume, epoch = %self.epoch,
                "attachment superseded by a newer one: every request fails from now on",
            );
        }
    }

    /// The user has closed the volume. False if it was not open.
    pub(crate) fn close(&self) -> bool {
        let open = self.state.get() == State::Open;
        if open {
            self.state.set(State::Closed);
        }
        open
    }

    /// Whether a new request may enter.
    pub(crate) fn check_open(&self) -> Result<(), ClientError> {
        match self.state.get() {
            State::Open => Ok(()),
            State::Closed => Err(ClientError::Closed),
            State::Fenced => Err(self.fenced()),
        }
    }

    /// Whether a request that has entered may go on: closing waits for those.
    pub(crate) fn check_alive(&self) -> Result<(), ClientError> {
        match self.state.get() {
            State::Open | State::Closed => Ok(()),
            State::Fenced => Err(self.fenced()),
        }
    }

    const fn fenced(&self) -> ClientError {
        ClientError::Fenced {
            volume: self.volume,
            epoch: self.epoch,
        }
    }
}
