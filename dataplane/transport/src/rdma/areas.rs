//! Memory that is announced (`ogee_runtime::area`), registered with a port's device.
//!
//! *Place*: beside the port's own slabs; what lies in it is sent from where it lies. *Owner*: a registration hangs on its
//! area, and goes with it or with the port, whichever is first; work requests and loans under way keep what they use.
//!
//! *Invariants*: each area is registered once, in stretches of [`STRETCH`], since the shard waits for each of them, and let go
//! of in the same ones; that takes a fifth of the shard's time at most. Not more is registered than is configured.
//! *On failure*: what was not registered is copied as before; that is said once for a port, and counted.

use super::limit::STRETCH;
use crate::metrics::count;
use ogee_rdma::{Domain, Part, Region};
use ogee_runtime::area::{self, Area};
use ogee_runtime::{Instant, Loan, Payload, ScopedTask, now, sleep, spawn_scoped};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

thread_local! {
    static PORTS: Cell<usize> = const { Cell::new(0) };
}

/// What a port has registered of the thread's areas.
pub(super) struct Areas {
    inner: Rc<Inner>,
    /// Registers what is announced later.
    _task: ScopedTask<()>,
}

struct Inner {
    /// Tells its registrations from those of other ports.
    number: usize,
    domain: Domain,
    /// Bytes that may be registered, and that are.
    bytes_max: usize,
    bytes: Cell<usize>,
    /// Of areas that were withdrawn: still to be let go of, one after the other.
    dying: RefCell<Vec<Region>>,
    is_told: Cell<bool>,
}

/// What is registered of one area: its first stretches.
struct Registered {
    stretches: RefCell<Vec<Region>>,
    inner: Weak<Inner>,
}

impl Areas {
    /// Of all that is announced, now and later, at most `bytes_max`.
    pub(super) fn new(domain: &Domain, bytes_max: usize) -> Self {
        let number = PORTS.get();
        PORTS.set(number + 1);
        let inner = Rc::new(Inner {
            number,
            domain: domain.clone(),
            bytes_max,
            bytes: Cell::default(),
            dying: RefCell::default(),
            is_told: Cell::new(false),
        });
        // What is one stretch is there from the beginning.
        for area in area::all() {
            if area.len() <= STRETCH {
                let registered = inner.begin(&area);
                inner.register_next(&area, &registered);
            }
        }
        let _task = spawn_scoped(run(Rc::clone(&inner)));
        Self { inner, _task }
    }

    /// These bytes where they lie, if that is registered.
    pub(super) fn part(&self, payload: &Payload) -> Option<Part> {
        self.in_stretch(payload.as_ptr().addr(), payload.len(), |stretch| {
            stretch.part(payload, Box::new(payload.clone()))
        })
    }

    /// What is lent, for a peer to write to, if that is registered.
    pub(super) fn target(&self, loan: &Loan) -> Option<Part> {
        let target = loan.target();
        let start = target.start();
        self.in_stretch(start.addr().get(), target.len(), |stretch| {
            let keeper = Box::new(loan.clone());
            // SAFETY: who made the target promised it, until its owner is dropped; the loan holds that.
            unsafe { stretch.target(start, target.len(), keeper) }
        })
    }

    /// What `part_of` makes of the stretch in which these bytes begin, if they were announced and that is registered.
    fn in_stretch(
        &self,
        start: usize,
        len: usize,
        part_of: impl FnOnce(&Region) -> Option<Part>,
    ) -> Option<Part> {
        let area = area::find_at(start, len)?;
        let registered = self.inner.registered(&area)?;
        let offset = start - area.start().addr().get();
        let stretches = registered.stretches.borrow();
        part_of(stretches.get(offset / STRETCH)?)
    }
}

async fn run(inner: Rc<Inner>) {
    let mut changes = area::changes();
    loop {
        changes.borrow_and_update();
        // What was withdrawn goes before anything else is registered, also while that goes on: a guest's memory that is
        // mapped anew is not to be locked twice.
        while let Some(area) = inner.next_to_begin().await {
            let registered = Rc::downgrade(&inner.begin(&area));
            let known = Rc::downgrade(&area);
            drop(area);
            // It goes when it is withdrawn: nothing here holds it while others run.
            while let (Some(area), Some(registered)) = (known.upgrade(), registered.upgrade()) {
                let began = now();
                let more = inner.register_next(&area, &registered);
                drop((area, registered));
                if !more {
                    break;
                }
                rest(began).await;
                inner.let_go().await;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The shard's other tasks have four times as long as what began then has taken.
async fn rest(began: Instant) {
    sleep(began.elapsed() * 4).await;
}

impl Inner {
    /// The next stretch of what was withdrawn; whether there was one.
    async fn let_go(&self) -> bool {
        let region = self.dying.borrow_mut().pop();
        let Some(region) = region else {
            return false;
        };
        let began = now();
        drop(region);
        rest(began).await;
        true
    }

    /// The next one of which nothing was tried yet, when all that was withdrawn is gone.
    async fn next_to_begin(&self) -> Option<Rc<Area>> {
        while self.let_go().await {}
        self.next_area()
    }

    fn registered(&self, area: &Area) -> Option<Rc<Registered>> {
        area.attached(self.number)?.downcast().ok()
    }

    /// One of which nothing was tried yet.
    fn next_area(&self) -> Option<Rc<Area>> {
        let mut areas = area::all().into_iter();
        areas.find(|area| self.registered(area).is_none())
    }

    /// From here on it hangs on its area, and is not tried a second time.
    fn begin(self: &Rc<Self>, area: &Area) -> Rc<Registered> {
        let registered = Rc::new(Registered {
            stretches: RefCell::default(),
            inner: Rc::downgrade(self),
        });
        area.attach(self.number, Rc::clone(&registered) as Rc<dyn std::any::Any>);
        registered
    }

    /// Registers its next stretch; whether there is another one behind it.
    fn register_next(&self, area: &Area, registered: &Registered) -> bool {
        let at = registered.stretches.borrow().len() * STRETCH;
        let len = STRETCH.min(area.len() - at);
        if self.bytes.get() + len > self.bytes_max {
            let why = "a thread registers no more: serve fewer guests, or register less memory, in one process";
            self.refuse(area, at, &why);
            return false;
        }
        // SAFETY: `at` is within the area.
        let start = unsafe { area.start().add(at) };
        // SAFETY: the area is mapped as long as its owner lives, which the region keeps.
        let region = unsafe { Region::register(&self.domain, start, len, Box::new(area.owner())) };
        match region {
            Ok(region) => {
                registered.stretches.borrow_mut().push(region);
                self.bytes.set(self.bytes.get() + len);
                count(|metrics| metrics.registered_bytes.add(len));
                at + len < area.len()
            }
            Err(error) => {
                self.refuse(area, at, &error);
                false
            }
        }
    }

    fn refuse(&self, area: &Area, at: usize, why: &dyn std::fmt::Display) {
        count(|metrics| metrics.registrations_failed.bump());
        if !self.is_told.replace(true) {
            tracing::warn!(
                memory = area.name(),
                bytes = area.len() - at,
                registered = self.bytes.get(),
                registered_max = self.bytes_max,
                %why,
                "cannot register memory with the RDMA device: what is sent from there is copied"
            );
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // Without its port nobody is left who would have to wait.
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let stretches = self.stretches.get_mut();
        let bytes: usize = stretches.iter().map(Region::len).sum();
        inner.bytes.set(inner.bytes.get() - bytes);
        // One stretch goes at once, as it came. Whoever withdraws an area says so to `run` after this.
        if stretches.len() > 1 {
            inner.dying.borrow_mut().append(stretches);
        }
    }
}

impl Drop for Areas {
    fn drop(&mut self) {
        for area in area::all() {
            area.detach(self.inner.number);
        }
    }
}
