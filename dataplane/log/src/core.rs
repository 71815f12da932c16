//! What the public handles, the flusher and the readers share.
//!
//! *Place*: behind `Rc` in [`Log`](crate::Log), [`GroupLog`](crate::GroupLog) and the flusher's
//! task. *Owner*: the executor that opened the log. *Invariants*: the state is borrowed for plain
//! functions only. *On failure*: see `state`.

use crate::completion::{Completion, completion};
use crate::error::LogError;
use crate::queue::Done;
use crate::signal::Signal;
use crate::state::State;
use crate::usage::Pressure;
use ogee_device::Device;
use ogee_proto::id::CopysetId;
use ogee_runtime::channel::{Notify, watch};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A log.
pub(crate) struct Core {
    pub device: Device,
    /// The device of the data, if it is another one.
    data: Option<Device>,
    pub state: RefCell<State>,
    /// Raised when the flusher has something to do.
    pub work: Signal,
    /// Told when space was freed or the log stopped.
    pub space: Notify,
    /// Told when a payload was found lost.
    pub damage: Notify,
    /// Bytes promised to entries that are on their way: the state's, which may be borrowed when they come back.
    pub promised: Rc<Cell<u64>>,
    /// The same by group.
    pub promised_to: RefCell<BTreeMap<CopysetId, u64>>,
    pressure: watch::Sender<Pressure>,
}

impl Core {
    pub(crate) fn new(device: Device, data: Option<Device>, state: State) -> Rc<Self> {
        let (pressure, _) = watch::channel(state.pressure());
        Rc::new(Self {
            device,
            data,
            promised: Rc::clone(&state.promised),
            state: RefCell::new(state),
            work: Signal::default(),
            space: Notify::new(),
            damage: Notify::new(),
            promised_to: RefCell::default(),
            pressure,
        })
    }

    /// The device of the data.
    pub(crate) fn data(&self) -> &Device {
        self.data.as_ref().unwrap_or(&self.device)
    }

    /// Follows the pressure.
    pub(crate) fn watch_pressure(&self) -> watch::Receiver<Pressure> {
        self.pressure.subscribe()
    }

    /// Looks at the space anew, after something became durable or the log stopped.
    pub(crate) fn tell_space(&self) {
        let now = self.state.borrow().pressure();
        self.pressure
            .send_if_modified(|known| std::mem::replace(known, now) != now);
        self.space.notify_all();
    }

    /// Runs `accept`, which queues something with the given callback, and returns what tells when
    /// it is durable. A refusal is told the same way.
    pub(crate) fn accept(
        &self,
        accept: impl FnOnce(&mut State, Done) -> Result<(), LogError>,
    ) -> Completion {
        let (done, completion) = completion();
        let refuse = done.clone();
        let result = accept(&mut self.state.borrow_mut(), done.into_done());
        match result {
            Ok(()) => self.work.raise(),
            Err(error) => refuse.complete(Err(error)),
        }
        completion
    }
}
