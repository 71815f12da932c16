//! When periodic tasks of a shard look: all at once, since each wake-up of an idle shard costs more
//! than what is looked at.

use ogee_runtime::Instant;
use std::time::Duration;

thread_local! {
    static ORIGIN: Instant = ogee_runtime::now();
}

/// The next moment of the shard's grid of `every`.
pub(crate) fn next_look(every: Duration) -> Instant {
    let origin = ORIGIN.with(|origin| *origin);
    let now = ogee_runtime::now();
    let since = now.saturating_duration_since(origin);
    let past = since.as_nanos() % every.as_nanos().max(1);
    now + every.saturating_sub(Duration::from_nanos(u64::try_from(past).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::next_look;
    use crate::fixture::run;
    use std::time::Duration;

    #[test]
    fn looks_of_different_tasks_meet() {
        run(async {
            let every = Duration::from_millis(50);
            let first = next_look(every);
            ogee_runtime::sleep(Duration::from_millis(7)).await;
            let second = next_look(every);
            let apart = (second - first).as_nanos() % every.as_nanos();
            assert_eq!(apart, 0, "{:?}", second - first);
            assert!(second > ogee_runtime::now());
        });
    }
}
