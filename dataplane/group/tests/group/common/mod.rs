//! What these tests share.

mod cluster;
mod disk;
pub mod net;
pub mod node;

pub use cluster::{Cluster, describe_all};
pub use disk::{Disk, block_bytes};
pub use node::{COPYSET, Medium, Node, QUICK};

use std::future::Future;
use std::time::Duration;

/// Far beyond what any test takes: a group that stands still fails instead of hanging.
const TEST_TIME: Duration = Duration::from_secs(120);

/// Runs a test's body, which must end in time.
pub fn run(body: impl Future<Output = ()>) {
    run_for(TEST_TIME, body);
}

/// Runs a test's body, which must end within `time`. `RUST_LOG=ogee_group=info` shows what happens.
pub fn run_for(time: Duration, body: impl Future<Output = ()>) {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let shown = tracing_subscriber::fmt().with_env_filter(filter);
    // One test of several has done it.
    let _ = shown.with_test_writer().try_init();
    ogee_runtime::executor::block_on(async {
        if ogee_runtime::timeout(time, body).await.is_err() {
            panic!("the test does not end: {}", describe_all());
        }
    });
}

/// Waits until something is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        pause().await;
    }
}

/// Between two looks.
pub async fn pause() {
    ogee_runtime::sleep(Duration::from_millis(5)).await;
}

/// Seeded choices.
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)) >> 33;
        usize::try_from(mixed).expect("31 bits") % bound
    }
}
