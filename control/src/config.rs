//! What a metadata server is told at start.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use ogee_proto::name::Name;

use crate::error::MdsError;
use crate::limit::{MOVES_MAX, TIME_MS_MAX};
use crate::scheduler::{HealRules, SickRules};
use crate::state::OUR_VERSION;

/// One metadata server of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Never 0, unique in the group.
    pub id: u64,
    /// `host:port` of its gRPC services, as the others and the clients reach it.
    pub addr: String,
}

/// Configuration of one metadata server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MdsConfig {
    /// Where the metadata is kept; made if missing.
    pub data_dir: PathBuf,
    /// gRPC services. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// `/metrics` and `/healthz`; `None` leaves them out.
    pub metrics_listen: Option<SocketAddr>,
    /// This member.
    pub id: u64,
    /// The whole group, this member included; empty: this member alone.
    pub members: Vec<Member>,
    /// On its first start it forms no group, but waits until it is taken into one.
    pub join: bool,
    /// For tests of upgrades: it says, and takes, no more than an earlier release would; 0: all that it understands.
    pub act_as_version: u32,
    /// How often chunkservers heartbeat, in milliseconds.
    pub heartbeat_ms: u64,
    /// A chunkserver not heard from for so long is offline, in milliseconds.
    pub offline_ms: u64,
    /// How long making a pool waits for enough zones to come online, in milliseconds.
    pub zone_wait_ms: u64,
    /// Name of the cluster, for people.
    pub cluster: String,
    /// A device away for so long is re-protected elsewhere, in milliseconds; 0: never by itself.
    pub recover_after_ms: u64,
    /// Replicas that are moved at once, in all.
    pub moves_max: usize,
    /// Of those, from or to one chunkserver.
    pub moves_per_server_max: usize,
    /// Of those, from, to or within one zone.
    pub moves_per_zone_max: usize,
    /// Of those, of one pool.
    pub moves_per_pool_max: usize,
    /// Of those, from or to one device.
    pub moves_per_device_max: usize,
    /// How long one move may take, in milliseconds.
    pub move_timeout_ms: u64,
    /// Leaders uneven for so long are moved, in milliseconds; 0: never by themselves.
    pub balance_after_ms: u64,
    /// What becomes of devices that limp.
    pub sick: SickRules,
    /// Devices that carry replicas unevenly for so long are evened out, in milliseconds; 0: never by themselves.
    pub replica_balance_after_ms: u64,
    /// Two devices that differ by no more, in percent, are even.
    pub replica_balance_percent: u64,
    /// Leaders move for what is asked of them only if that evens out so much, in percent; 0: never.
    pub leader_load_percent: u64,
    /// A device of which so much is taken is said to be nearly full, in percent; 0: never.
    pub nearly_full_percent: u64,
}

impl MdsConfig {
    /// A lone metadata server with the default timing.
    #[must_use]
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        let heal = HealRules::default();
        Self {
            data_dir,
            listen,
            metrics_listen: None,
            id: 1,
            members: Vec::new(),
            join: false,
            act_as_version: 0,
            heartbeat_ms: 1000,
            offline_ms: 3000,
            zone_wait_ms: 10_000,
            cluster: "ogee".into(),
            recover_after_ms: heal.recover_after_ms,
            moves_max: heal.moves_max,
            moves_per_server_max: heal.moves_per_server_max,
            moves_per_zone_max: heal.moves_per_zone_max,
            moves_per_pool_max: heal.moves_per_pool_max,
            moves_per_device_max: heal.moves_per_device_max,
            move_timeout_ms: heal.move_timeout_ms,
            balance_after_ms: heal.balance_after_ms,
            sick: heal.sick,
            replica_balance_after_ms: heal.spread_after_ms,
            replica_balance_percent: heal.spread_percent,
            leader_load_percent: heal.lead_percent,
            nearly_full_percent: heal.nearly_full_percent,
        }
    }

    /// The group's addresses by id; for a lone server, where it listens.
    pub(crate) fn group(&self, bound: SocketAddr) -> Result<BTreeMap<u64, String>, MdsError> {
        if self.members.is_empty() && self.id != 0 {
            return Ok(BTreeMap::from([(self.id, bound.to_string())]));
        }
        let group: BTreeMap<u64, String> = self
            .members
            .iter()
            .map(|m| (m.id, m.addr.clone()))
            .collect();
        let unique = group.len() == self.members.len() && !group.contains_key(&0);
        if unique && group.contains_key(&self.id) {
            Ok(group)
        } else {
            Err(MdsError::Members { id: self.id })
        }
    }

    /// What it understands of the metadata's commands, or acts as if it did.
    pub(crate) const fn version(&self) -> Result<u32, MdsError> {
        match self.act_as_version {
            0 => Ok(OUR_VERSION),
            version if version <= OUR_VERSION => Ok(version),
            _ => Err(MdsError::Setting {
                key: "act_as_version",
            }),
        }
    }

    /// What healing is told, if it can be used.
    pub(crate) fn heal_rules(&self) -> Result<HealRules, MdsError> {
        let offline = self.offline_ms;
        let never_or_from = |ms: u64, least: u64| ms == 0 || (least..=TIME_MS_MAX).contains(&ms);
        let some = |count: usize| (1..=MOVES_MAX).contains(&count);
        let checks = [
            (
                "recover_after_ms",
                never_or_from(self.recover_after_ms, offline),
            ),
            ("moves_max", some(self.moves_max)),
            ("moves_per_server_max", some(self.moves_per_server_max)),
            ("moves_per_zone_max", some(self.moves_per_zone_max)),
            ("moves_per_pool_max", some(self.moves_per_pool_max)),
            ("moves_per_device_max", some(self.moves_per_device_max)),
            (
                "move_timeout_ms",
                (offline.max(1)..=TIME_MS_MAX).contains(&self.move_timeout_ms),
            ),
            (
                "balance_after_ms",
                never_or_from(self.balance_after_ms, 1000),
            ),
            (
                "replica_balance_after_ms",
                never_or_from(self.replica_balance_after_ms, 1000),
            ),
            (
                "replica_balance_percent",
                (1..=100).contains(&self.replica_balance_percent),
            ),
            ("leader_load_percent", self.leader_load_percent <= 100),
            ("nearly_full_percent", self.nearly_full_percent <= 100),
        ];
        if let Some((key, _)) = checks.into_iter().find(|(_, is_right)| !is_right) {
            return Err(MdsError::Setting { key });
        }
        Ok(HealRules {
            recover_after_ms: self.recover_after_ms,
            moves_max: self.moves_max,
            moves_per_server_max: self.moves_per_server_max,
            moves_per_zone_max: self.moves_per_zone_max,
            moves_per_pool_max: self.moves_per_pool_max,
            moves_per_device_max: self.moves_per_device_max,
            move_timeout_ms: self.move_timeout_ms,
            balance_after_ms: self.balance_after_ms,
            sick: self.sick_rules()?,
            spread_after_ms: self.replica_balance_after_ms,
            spread_percent: self.replica_balance_percent,
            lead_percent: self.leader_load_percent,
            nearly_full_percent: self.nearly_full_percent,
        })
    }

    fn sick_rules(&self) -> Result<SickRules, MdsError> {
        let sick = self.sick;
        let within = |ms: u64, least: u64| (least..=TIME_MS_MAX).contains(&ms);
        let checks = [
            (
                "factor",
                sick.factor == 0 || (2..=1000).contains(&sick.factor),
            ),
            ("floor_ms", (1..=60_000).contains(&sick.floor_ms)),
            ("limping_after_ms", within(sick.limping_after_ms, 1)),
            ("well_after_ms", within(sick.well_after_ms, 1000)),
            (
                "eject_after_ms",
                sick.eject_after_ms == 0 || within(sick.eject_after_ms, 1000),
            ),
            (
                "reinstate_after_ms",
                sick.reinstate_after_ms == 0 || within(sick.reinstate_after_ms, 1000),
            ),
        ];
        match checks.into_iter().find(|(_, is_right)| !is_right) {
            Some((key, _)) => Err(MdsError::Setting { key }),
            None => Ok(sick),
        }
    }

    pub(crate) fn cluster_name(&self) -> Result<Name, MdsError> {
        Name::new(&self.cluster).map_err(|source| MdsError::ClusterName {
            cluster: self.cluster.clone(),
            source,
        })
    }
}
