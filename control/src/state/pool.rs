//! What an operator allows in a pool: new volumes, their size in all, and how often it is chosen when no pool is named.

use ogee_proto::id::PoolId;
use ogee_proto::name::Name;
use serde::{Deserialize, Serialize};

use super::command::{Outcome, Reply};
use super::model::{Pool, State};
use super::refusal::Refusal;
use crate::limit::{POOL_WEIGHT_MAX, SCATTER_WIDTH_MAX};

/// See [`super::Command::SetPool`]. What is `None` stays as it is. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPool {
    /// By name.
    pub name: Name,
    /// Whether new volumes may be made in it.
    pub allows_volumes: Option<bool>,
    /// Bytes that its volumes may have in all; 0: any number.
    pub quota: Option<u64>,
    /// Share of the volumes that name no pool; 0: none of them.
    pub weight: Option<u32>,
    /// With how many others each device shall share copysets; 0: with as many as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scatter_width: Option<u32>,
}

impl State {
    /// Bytes of a pool's volumes, as their users see them.
    #[must_use]
    pub fn promised(&self, pool: PoolId) -> u64 {
        let volumes = self.volumes.values().filter(|volume| volume.pool == pool);
        volumes.fold(0, |sum, volume| sum.saturating_add(volume.size))
    }

    /// The pool for a volume of so many bytes and replicas (0: any number) that names none: of those that have a weight,
    /// allow it and have room for it, the one whose volumes are smallest for its weight. The name that is given if no pool
    /// has a weight.
    #[must_use]
    pub fn pool_for<'a>(&'a self, size: u64, replicas: u32, otherwise: &'a str) -> &'a str {
        let weighted = self.pools.iter().filter(|(_, pool)| pool.weight > 0);
        let fits = weighted.clone().filter(|(id, pool)| {
            (replicas == 0 || replicas == u32::from(pool.replicas))
                && self.check_policy(**id, pool, 0, size, true).is_ok()
        });
        // The share after it, exactly: a / b < c / d as a * d < c * b.
        let least = fits.map(|(id, pool)| (self.promised(*id).saturating_add(size), pool));
        let least = least.min_by(|(a, one), (b, other)| {
            let left = u128::from(*a) * u128::from(other.weight);
            let right = u128::from(*b) * u128::from(one.weight);
            left.cmp(&right).then_with(|| one.name.cmp(&other.name))
        });
        // One that has no room says why.
        let found = least
            .map(|(_, pool)| pool)
            .or_else(|| weighted.clone().map(|it| it.1).next());
        found.map_or(otherwise, |pool| pool.name.as_str())
    }

    /// Whether a volume in it may grow from so many bytes, 0 if it is new, to so many.
    pub(super) fn check_policy(
        &self,
        id: PoolId,
        pool: &Pool,
        from: u64,
        to: u64,
        is_new: bool,
    ) -> Result<(), Refusal> {
        if is_new && pool.is_closed {
            return Err(Refusal::PoolClosed {
                pool: pool.name.clone(),
            });
        }
        let (promised, more) = (self.promised(id), to.saturating_sub(from));
        if more == 0 || pool.quota == 0 || promised.saturating_add(more) <= pool.quota {
            return Ok(());
        }
        Err(Refusal::PoolQuota {
            pool: pool.name.clone(),
            quota: pool.quota,
            promised,
            more,
        })
    }

    pub(super) fn set_pool(&mut self, command: &SetPool) -> Outcome {
        let (id, pool) = self.pool(command.name.as_str())?;
        if let Some(width) = command.scatter_width {
            check_scatter_width(width, pool.replicas)?;
        }
        if let Some(weight) = command.weight.filter(|it| *it > POOL_WEIGHT_MAX) {
            return Err(Refusal::BadWeight { weight });
        }
        if let Some(pool) = self.pools.get_mut(&id) {
            if let Some(allows) = command.allows_volumes {
                pool.is_closed = !allows;
            }
            pool.quota = command.quota.unwrap_or(pool.quota);
            pool.weight = command.weight.unwrap_or(pool.weight);
            pool.scatter_width = command.scatter_width.unwrap_or(pool.scatter_width);
        }
        Ok(Reply::Pool(id))
    }
}

/// Whether a pool of so many replicas can have that scatter width.
pub(super) const fn check_scatter_width(width: u32, replicas: u8) -> Result<(), Refusal> {
    let is_apart = width > 0 && replicas < 2;
    if is_apart || width > SCATTER_WIDTH_MAX {
        return Err(Refusal::BadScatterWidth { width, replicas });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::SetPool;
    use crate::state::{Command, Refusal, State};
    use ogee_proto::name::Name;
    use serde_json::json;

    const GIB: u64 = 1 << 30;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    /// Pools of one replica, of those names.
    fn state(pools: &[&str]) -> State {
        let mut state = State::default();
        let store = "00000000-0000-0000-0000-000000000001";
        let register = json!({
            "do": "RegisterChunkserver", "name": "s1", "zone": "z1", "server": "s1",
            "endpoints": ["h:1"], "version": "1",
            "stores": [{"id": store, "shard": 0, "path": "/d", "capacity": 1u64 << 40, "log_capacity": 1u64 << 30}],
        });
        let mut commands = vec![register];
        for (at, pool) in (1..).zip(pools) {
            commands.push(json!({"do": "CreatePool", "name": pool, "replicas": 1}));
            commands.push(json!({
                "do": "CreateCopysets", "pool": at, "existing": 0, "placements": [[store]],
            }));
            commands.push(json!({"do": "ConfirmReplicas", "created": [], "formed": [at]}));
        }
        for command in commands {
            let command: Command = serde_json::from_value(command).expect("a command");
            state.apply(&command).expect("taken");
        }
        state
    }

    fn volume(state: &mut State, called: &str, pool: &str, size: u64) -> Result<(), Refusal> {
        let command = json!({
            "do": "CreateVolume", "name": called, "pool": pool, "size": size,
            "stripe": {"unit": 16 << 20, "count": 1}, "replicas": 0, "owner": "", "created_unix_ms": 1,
        });
        let command: Command = serde_json::from_value(command).expect("a command");
        state.apply(&command).map(drop)
    }

    fn set(state: &mut State, pool: &str, change: impl FnOnce(&mut SetPool)) {
        let mut command = SetPool {
            name: name(pool),
            allows_volumes: None,
            quota: None,
            weight: None,
            scatter_width: None,
        };
        change(&mut command);
        state.apply(&Command::SetPool(command)).expect("set");
    }

    #[test]
    fn a_quota_bounds_what_volumes_promise_and_names_what_is_left() {
        let mut state = state(&["p"]);
        volume(&mut state, "a", "p", 4 * GIB).expect("no quota");
        set(&mut state, "p", |it| it.quota = Some(6 * GIB));
        let refused = volume(&mut state, "b", "p", 3 * GIB).expect_err("too much");
        let text = refused.fault().to_string();
        for part in ["6.0 GiB", "4.0 GiB", "3.0 GiB", "ogee pool set p --quota"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        volume(&mut state, "b", "p", 2 * GIB).expect("as much as there is");
        let grow = |size: u64| {
            let grow = json!({"do": "ResizeVolume", "name": "b", "size": size});
            serde_json::from_value::<Command>(grow).expect("a command")
        };
        assert!(state.apply(&grow(3 * GIB)).is_err());
        // Below what there is: nothing is taken away, and nothing grows.
        set(&mut state, "p", |it| it.quota = Some(GIB));
        state.apply(&grow(2 * GIB)).expect("it does not grow");
        assert!(volume(&mut state, "c", "p", GIB).is_err());
        set(&mut state, "p", |it| it.quota = Some(0));
        volume(&mut state, "c", "p", 100 * GIB).expect("none any more");
    }

    #[test]
    fn a_closed_pool_takes_no_new_volume_and_lets_those_it_has_grow() {
        let mut state = state(&["p"]);
        volume(&mut state, "a", "p", GIB).expect("open");
        set(&mut state, "p", |it| it.allows_volumes = Some(false));
        let refused = volume(&mut state, "b", "p", GIB).expect_err("closed");
        assert!(refused.fault().to_string().contains("--allow-volumes yes"));
        let grow = json!({"do": "ResizeVolume", "name": "a", "size": 2 * GIB});
        let grow: Command = serde_json::from_value(grow).expect("a command");
        state.apply(&grow).expect("it was there");
        set(&mut state, "p", |it| it.allows_volumes = Some(true));
        volume(&mut state, "b", "p", GIB).expect("open again");
    }

    #[test]
    fn a_scatter_width_is_for_pools_whose_devices_share_copysets() {
        let mut state = state(&["p"]);
        let set = |state: &mut State, width: u32| {
            let set = json!({"do": "SetPool", "name": "p", "scatter_width": width});
            let set: Command = serde_json::from_value(set).expect("a command");
            state.apply(&set)
        };
        let refused = set(&mut state, 4).expect_err("one replica");
        assert!(
            refused.fault().to_string().contains("OGEE-2095"),
            "{refused}"
        );
        set(&mut state, 0).expect("none");
        let pool = |width: u32| {
            let pool =
                json!({"do": "CreatePool", "name": "q", "replicas": 3, "scatter_width": width});
            serde_json::from_value::<Command>(pool).expect("a command")
        };
        assert!(
            state.apply(&pool(1_000_000)).is_err(),
            "so many devices there are never"
        );
        state.apply(&pool(4)).expect("three replicas");
        let (_, made) = state.pool("q").expect("made");
        assert_eq!(made.scatter_width, 4);
        assert!(state.apply(&pool(5)).is_err(), "it is another one");
        // An earlier release reads what has none as before.
        let (_, old) = state.pool("p").expect("a pool");
        let old = serde_json::to_value(old).expect("a record");
        assert_eq!(old.get("scatter_width"), None);
        // It changes with a later version, and an earlier command changes nothing of it.
        let other = json!({"do": "SetPool", "name": "q", "weight": 3});
        let other: Command = serde_json::from_value(other).expect("a command");
        state.apply(&other).expect("set");
        assert_eq!(state.pool("q").expect("made").1.scatter_width, 4);
    }

    #[test]
    fn volumes_that_name_no_pool_go_by_weight() {
        let mut state = state(&["a", "b", "c"]);
        assert_eq!(
            state.pool_for(GIB, 0, "default"),
            "default",
            "none has a weight"
        );
        set(&mut state, "a", |it| it.weight = Some(1));
        set(&mut state, "b", |it| it.weight = Some(3));
        let mut got = [0, 0];
        for at in 0..40 {
            let pool = state.pool_for(GIB, 1, "default").to_owned();
            got[usize::from(pool == "b")] += 1;
            assert_ne!(pool, "c", "it has no weight");
            volume(&mut state, &format!("v{at}"), &pool, GIB).expect("made");
        }
        assert_eq!(got, [10, 30]);
        set(&mut state, "b", |it| it.allows_volumes = Some(false));
        assert_eq!(state.pool_for(GIB, 0, "default"), "a");
        set(&mut state, "a", |it| it.quota = Some(10 * GIB));
        // Nobody has room: the one that is named says why.
        let pool = state.pool_for(GIB, 0, "default").to_owned();
        assert!(volume(&mut state, "more", &pool, GIB).is_err());
        let heavy = SetPool {
            name: name("a"),
            allows_volumes: None,
            quota: None,
            weight: Some(u32::MAX),
            scatter_width: None,
        };
        assert!(state.apply(&Command::SetPool(heavy)).is_err());
    }
}
