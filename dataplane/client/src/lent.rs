//! Memory of a read's user that chunkservers write to, until they do so no more.
//!
//! *Place*: under [`Volume::read_to`](crate::Volume::read_to). *Owner*: each part has the lease of its place; what a part leaves
//! behind when it ends, is given up or runs out of time belongs to the read. *Invariants*: this is where it is kept that nobody
//! writes to a user's memory after the read has returned: [`Lent::settled`] runs the read, within its limit of time, and returns
//! behind the end of the last loan. If it is dropped the loans are recalled, and each holds the owner of its target until it is
//! over. *On failure*: a carrier gives a loan back in any case, at the latest with the end of its connection.

use crate::error::ClientError;
use crate::limit::RECALL_AFTER;
use ogee_runtime::{Lease, Loan, Target, area, timeout};
use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

/// What the parts of one read have lent and left behind.
#[derive(Default)]
pub(crate) struct Lent(RefCell<Vec<Lease>>);

/// The lease of a part's place.
pub(crate) struct Held<'a> {
    lease: Option<Lease>,
    read: &'a Lent,
}

impl Lent {
    /// Lends `place`, if somebody has registered it who could let others write there: without that a loan would be an
    /// allocation for nothing.
    pub(crate) fn lend(&self, place: &Target) -> (Option<Loan>, Held<'_>) {
        let area = area::find_at(place.start().addr().get(), place.len());
        let lent = area.filter(|area| area.is_registered());
        let (loan, lease) = lent.map(|_| place.lend()).unzip();
        (loan, Held { lease, read: self })
    }

    /// What `read` comes to, when nobody writes to what it has lent any more.
    pub(crate) async fn settled<T>(
        &self,
        read: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let outcome = read.await;
        // After an error others may be about to answer in time, which spares their connection; after its own time is over
        // nothing is waited for.
        let patience = match &outcome {
            Err(ClientError::TimedOut(_)) => Duration::ZERO,
            _ => RECALL_AFTER,
        };
        end(self.0.take(), patience).await;
        outcome
    }
}

/// Waits until nobody writes there, at most so long before it is recalled.
async fn end(mut leases: Vec<Lease>, patience: Duration) {
    // What nobody has lent on is back as soon as it is recalled, as it is when its lease is dropped.
    leases.retain(Lease::is_lent_on);
    if leases.is_empty() {
        return;
    }
    if timeout(patience, all_over(&leases)).await.is_err() {
        leases.iter().for_each(Lease::recall);
        all_over(&leases).await;
    }
}

async fn all_over(leases: &[Lease]) {
    for lease in leases {
        lease.over().await;
    }
}

impl Held<'_> {
    /// Waits until nobody writes to the place, nor will: a replica that was asked before the one that has answered may.
    pub(crate) async fn end(&self) {
        let Some(lease) = &self.lease else { return };
        if !lease.is_lent_on() || timeout(RECALL_AFTER, lease.over()).await.is_err() {
            lease.recall();
            lease.over().await;
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take().filter(Lease::is_lent_on) {
            self.read.0.borrow_mut().push(lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lent;
    use crate::error::ClientError;
    use crate::limit::RECALL_AFTER;
    use ogee_runtime::area::{Announced, announce, find_at};
    use ogee_runtime::executor::block_on;
    use ogee_runtime::{Loan, Target, now, sleep, spawn, timeout};
    use std::cell::{Cell, OnceCell, RefCell};
    use std::future::{pending, ready};
    use std::ptr::NonNull;
    use std::rc::Rc;
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn memory() -> (Target, Announced) {
        let mut bytes = vec![0_u8; 4096].into_boxed_slice();
        let start = NonNull::from_mut(&mut *bytes).cast();
        let owner = Rc::new(bytes);
        // SAFETY: the owner holds the bytes.
        let announced = unsafe { announce(start, 4096, "a test's memory", Rc::clone(&owner) as _) };
        // SAFETY: as above, and nobody looks at them.
        (unsafe { Target::new(start, 4096, owner) }, announced)
    }

    fn registered() -> (Target, Announced) {
        let (place, announced) = memory();
        let area = find_at(place.start().addr().get(), 4096).expect("announced");
        area.attach(1, Rc::new(()));
        (place, announced)
    }

    /// What a carrier has lent on.
    #[derive(Clone, Default)]
    struct Carrier {
        loan: Rc<RefCell<Option<Loan>>>,
        is_voided: Rc<Cell<bool>>,
    }

    impl Carrier {
        /// One that takes so long to void a key.
        fn lends_on(loan: Loan, takes: Duration) -> Self {
            let carrier = Self::default();
            let voiding = carrier.clone();
            loan.on_recall(move || {
                drop(spawn(async move {
                    sleep(takes).await;
                    voiding.is_voided.set(true);
                    voiding.is_answered();
                }));
            });
            carrier.loan.replace(Some(loan));
            carrier
        }

        fn is_answered(&self) {
            drop(self.loan.take());
        }
    }

    #[test]
    fn a_place_is_lent_only_where_somebody_has_registered_it() {
        let lent = Lent::default();
        let (place, _announced) = memory();
        assert!(lent.lend(&place).0.is_none());
        let (place, announced) = registered();
        assert!(lent.lend(&place).0.is_some());
        drop(announced);
        assert!(lent.lend(&place).0.is_none());
    }

    #[test]
    fn a_read_whose_time_is_over_ends_when_nobody_writes_any_more() {
        block_on(async {
            let (place, _announced) = registered();
            let (lent, carrier) = (Lent::default(), OnceCell::new());
            let limit = 20 * MS;
            let began = now();
            let read = async {
                let part = async {
                    let (loan, _held) = lent.lend(&place);
                    carrier.get_or_init(|| Carrier::lends_on(loan.expect("registered"), 30 * MS));
                    pending().await
                };
                let outcome = timeout(limit, part).await;
                outcome.unwrap_or(Err(ClientError::TimedOut(limit)))
            };
            let outcome: Result<(), _> = lent.settled(read).await;
            assert!(matches!(outcome, Err(ClientError::TimedOut(_))));
            let carrier = carrier.get().expect("it was lent");
            assert!(carrier.is_voided.get(), "somebody may write there");
            assert!(now() - began < RECALL_AFTER, "it is recalled at once");
        });
    }

    #[test]
    fn after_an_error_what_is_lent_on_is_waited_for_and_then_recalled() {
        block_on(async {
            let (place, _announced) = registered();
            for answers in [true, false] {
                let lent = Lent::default();
                let (loan, held) = lent.lend(&place);
                let carrier = Carrier::lends_on(loan.expect("registered"), MS);
                if answers {
                    let answering = carrier.clone();
                    drop(spawn(async move {
                        sleep(50 * MS).await;
                        answering.is_answered();
                    }));
                }
                drop(held);
                let began = now();
                let outcome: Result<(), _> = lent.settled(ready(Err(ClientError::Closed))).await;
                assert!(matches!(outcome, Err(ClientError::Closed)));
                let took = now() - began;
                if answers {
                    assert!(took < RECALL_AFTER && !carrier.is_voided.get(), "{took:?}");
                } else {
                    assert!(took >= RECALL_AFTER && carrier.is_voided.get(), "{took:?}");
                }
            }
        });
    }

    #[test]
    fn what_nobody_has_lent_on_is_not_waited_for() {
        block_on(async {
            let (place, _announced) = registered();
            let lent = Lent::default();
            // Its request is in a queue.
            let (queued, held) = lent.lend(&place);
            let queued = queued.expect("registered");
            let began = now();
            held.end().await;
            assert!(queued.is_recalled(), "nobody is to begin with it");
            let (second, held) = lent.lend(&place);
            drop(held);
            let outcome: Result<(), _> = lent.settled(ready(Err(ClientError::Closed))).await;
            assert!(outcome.is_err() && second.expect("registered").is_recalled());
            assert!(now() - began < RECALL_AFTER / 2);
        });
    }
}
