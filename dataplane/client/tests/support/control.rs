//! A control plane in memory: epochs, one volume, a map of the test's cluster.

use super::cluster::Cluster;
use ogee_client::{
    AttachSpec, Control, ControlError, ControlFuture, Grant, OpenOptions, Volume, VolumeMap,
};
use ogee_proto::id::{ClientId, Epoch, Incarnation};
use ogee_proto::layout::StripeLayout;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

pub struct TestControl {
    cluster: Cluster,
    layout: StripeLayout,
    epoch: Cell<u64>,
    /// Whether the newest attachment only reads: more readers join it.
    reading: Cell<bool>,
    pub size: Cell<u64>,
    /// What the volume is called by now.
    pub called: RefCell<String>,
    /// Refreshes fail.
    pub down: Cell<bool>,
    /// Nobody answers anything.
    pub silent: Cell<bool>,
    /// Nodes that attachments are told of, if not the true ones.
    pub told: RefCell<Option<Vec<usize>>>,
    pub detached: Cell<u32>,
}

impl TestControl {
    pub fn new(cluster: &Cluster, size: u64, layout: StripeLayout) -> Rc<Self> {
        Rc::new(Self {
            cluster: cluster.clone(),
            layout,
            epoch: Cell::new(0),
            reading: Cell::new(false),
            size: Cell::new(size),
            called: RefCell::new("v".into()),
            down: Cell::new(false),
            silent: Cell::new(false),
            told: RefCell::default(),
            detached: Cell::new(0),
        })
    }

    pub async fn open(self: &Rc<Self>) -> Volume {
        self.open_with(OpenOptions::default()).await
    }

    pub async fn open_limited(self: &Rc<Self>, limit: Duration) -> Volume {
        self.open_with(OpenOptions {
            io_timeout: Some(limit),
            ..OpenOptions::default()
        })
        .await
    }

    pub async fn open_with(self: &Rc<Self>, options: OpenOptions) -> Volume {
        let control: Rc<dyn Control> = Rc::<Self>::clone(self);
        Volume::open_with(control, "v", options).await.unwrap()
    }
}

impl Control for TestControl {
    fn attach(&self, spec: AttachSpec) -> ControlFuture<'_, Grant> {
        if self.silent.get() {
            return Box::pin(async { Err(unreachable()) });
        }
        let joins = self.reading.replace(spec.read_only) && spec.read_only;
        let epoch = self.epoch.get() + u64::from(!joins);
        self.epoch.set(epoch);
        let told = self.told.borrow();
        let map = self
            .cluster
            .map(self.size.get(), self.layout, told.as_deref());
        let grant = Grant {
            client: ClientId::new(100 + epoch),
            epoch: Epoch::new(epoch),
            incarnation: Incarnation::new(1),
            map,
        };
        Box::pin(async { Ok(grant) })
    }

    fn refresh(&self, _: &str, _: ClientId, _: Epoch) -> ControlFuture<'_, VolumeMap> {
        let outcome = match (self.silent.get(), self.down.get()) {
            (true, _) => Err(unreachable()),
            (_, true) => Err(ControlError::Stopped),
            _ => {
                let (name, size) = (self.called.borrow(), self.size.get());
                Ok(self.cluster.map_called(&name, size, self.layout, None))
            }
        };
        Box::pin(async { outcome })
    }

    fn detach(&self, _: &str, client: ClientId, _: Epoch) -> ControlFuture<'_, ()> {
        if self.silent.get() {
            return Box::pin(async { Err(unreachable()) });
        }
        assert!(
            (101..=100 + self.epoch.get()).contains(&client.get()),
            "{client} was never issued"
        );
        self.detached.set(self.detached.get() + 1);
        Box::pin(async { Ok(()) })
    }
}

fn unreachable() -> ControlError {
    ControlError::Unreachable {
        endpoints: vec!["10.0.0.1:1".into()],
        waited: Duration::ZERO,
        last: None,
    }
}
