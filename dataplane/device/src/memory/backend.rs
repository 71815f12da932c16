//! The backend: one image that reads see, one that a crash leaves, and what lies between.

use super::history::{History, Survivor};
use super::image::Image;
use crate::request::Request;
use ogee_proto::unit::ByteLen;
use ogee_runtime::{Buffer, Gather, ReadBuffer, yield_now};
use std::cell::RefCell;
use std::rc::Rc;

/// A device in memory.
///
/// Every request takes effect when it is submitted and yields once before it returns, so that
/// others may run, and a crash may come, between the two.
#[derive(Debug)]
pub(crate) struct MemoryDevice {
    len: ByteLen,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    visible: Image,
    durable: Image,
    history: History,
    /// Where the pieces of the newest write lay, and how long they were.
    written_from: Vec<(usize, usize)>,
}

impl MemoryDevice {
    pub(crate) fn new(len: ByteLen) -> Self {
        Self {
            len,
            state: RefCell::default(),
        }
    }

    pub(crate) const fn len(&self) -> ByteLen {
        self.len
    }

    pub(crate) async fn read(&self, request: Request<'_>) -> ReadBuffer {
        let mut data = Buffer::zeroed(request.len.as_usize());
        self.state.borrow().visible.read(request.offset, &mut data);
        yield_now().await;
        data.into()
    }

    pub(crate) async fn write(&self, request: Request<'_>, data: Gather) {
        self.state.borrow_mut().write(request, data);
        yield_now().await;
    }

    pub(crate) async fn write_durable(&self, request: Request<'_>, data: Gather) {
        let moment = self.state.borrow_mut().write(request, data);
        yield_now().await;
        let State {
            history, durable, ..
        } = &mut *self.state.borrow_mut();
        history.settle(request.offset, request.len, moment, durable);
    }

    pub(crate) async fn discard(&self, request: Request<'_>) {
        {
            let mut state = self.state.borrow_mut();
            state.visible.zero(request.offset, request.len);
            state.history.record_zeros(request.offset, request.len);
        }
        yield_now().await;
    }

    pub(crate) async fn flush(&self) {
        let until = self.state.borrow().history.now();
        yield_now().await;
        let State {
            history, durable, ..
        } = &mut *self.state.borrow_mut();
        history.settle_all(until, durable);
    }

    /// Sectors that a crash could change.
    pub(super) fn unflushed(&self) -> usize {
        self.state.borrow().history.len()
    }

    /// Addresses and lengths of the pieces of memory that the newest write was given.
    pub(super) fn written_from(&self) -> Vec<(usize, usize)> {
        self.state.borrow().written_from.clone()
    }

    /// A device that holds what a crash at this moment leaves; see [`History::crash`].
    pub(super) fn crashed(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let state = self.state.borrow();
        let mut survived = state.durable.clone();
        state.history.crash(&mut survived, |versions| {
            Survivor::Version(choose(versions))
        });
        let durable = survived.clone();
        let state = State {
            visible: survived,
            durable,
            ..State::default()
        };
        Self {
            len: self.len,
            state: RefCell::new(state),
        }
    }
}

impl State {
    fn write(&mut self, request: Request<'_>, data: Gather) -> super::history::Moment {
        let place = |piece: &[u8]| (piece.as_ptr().addr(), piece.len());
        self.written_from = data.pieces().map(place).collect();
        let data = data.into_buffer();
        self.visible.write(request.offset, &data);
        self.history.record(request.offset, &Rc::from(&*data))
    }
}
