//! Chunkservers in maintenance: what is said instead of an alarm.

use ogee_proto::id::ChunkserverId;

use super::assess::{Condition, Severity, Sight, Subject};
use crate::state::Copyset;

/// Whether all that a copyset lacks is away for a maintenance.
pub(super) fn is_spared(sight: &Sight<'_>, copyset: &Copyset) -> bool {
    let servers = copyset.replicas.iter().map(|r| r.chunkserver);
    let mut offline = servers.filter(|id| !sight.liveness.is_online(sight.now, *id));
    offline.all(|id| is_maintained(sight, id))
}

fn is_maintained(sight: &Sight<'_>, id: ChunkserverId) -> bool {
    let now_ms = sight.picture.now_ms;
    sight.state.maintenance(id, now_ms).is_some()
}

/// Each with the time that is left, and what goes on with fewer replicas meanwhile.
pub(super) fn maintenance_condition(sight: &Sight<'_>) -> Condition {
    let (state, now_ms) = (sight.state, sight.picture.now_ms);
    let mut condition = Condition::new(
        "OGEE-1016",
        Severity::Warn,
        "chunkservers are in maintenance: they lead nothing, and what they have is not made anew",
        "when it is done: ogee server maintenance NAME --cancel. More time: ogee server maintenance NAME --for 2h",
    );
    let in_it = state.chunkservers().iter().filter_map(|(id, server)| {
        let until_ms = state.maintenance(*id, now_ms)?.until_ms;
        Some((*id, server, until_ms))
    });
    for (id, server, until_ms) in in_it {
        condition.add_of(Subject::Server(server.name.clone()), || {
            let left = span(until_ms.saturating_sub(now_ms));
            if sight.liveness.is_online(sight.now, id) {
                return format!("{} ({left} left, online)", server.name);
            }
            let copysets = state.hosted(id).count();
            format!(
                "{} ({left} left, offline: {copysets} copysets have fewer replicas)",
                server.name
            )
        });
    }
    condition
}

/// A time in the unit that suits it.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn what_is_left_is_never_said_to_be_less() {
        assert_eq!([1, 1001, 119_000].map(span), ["1 s", "2 s", "119 s"]);
        assert_eq!([120_000, 121_000].map(span), ["2 min", "3 min"]);
        assert_eq!([7_200_000, 7_201_000].map(span), ["2 h", "3 h"]);
    }
}
