//! `ogee server|device|pool|zone|mds show`: everything that is known of one.

use super::job::{left, span};
use super::{ask, topology};
use crate::args::Format;
use crate::error::{CliError, Exit};
use crate::output::{human, line, print};
use ogee_proto::service::{
    CopysetInfo, DeviceInfo, HealthCode, PoolInfo, ReplicaInfo, ServerInfo, ZoneInfo,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

/// All that is asked for, one after another.
struct Cluster {
    servers: Vec<ServerInfo>,
    devices: Vec<DeviceInfo>,
    copysets: Vec<CopysetInfo>,
    zones: Vec<ZoneInfo>,
    pools: Vec<PoolInfo>,
    codes: Vec<HealthCode>,
}

impl Cluster {
    fn look(mds: &[String], doing: &str) -> Result<Self, CliError> {
        ask(mds, doing, async |client| {
            Ok(Self {
                servers: client.list_servers().await?.servers,
                devices: client.list_devices().await?.devices,
                copysets: client.list_copysets().await?.copysets,
                zones: client.list_zones().await?.zones,
                pools: client.list_pools().await?.pools,
                codes: client.status().await?.codes,
            })
        })
    }

    /// Replicas on those devices, those that are still to be deleted included.
    fn replicas_on<'a>(
        &'a self,
        stores: &'a BTreeSet<&str>,
    ) -> Vec<(&'a CopysetInfo, &'a ReplicaInfo)> {
        let all = self.copysets.iter().flat_map(|copyset| {
            let replicas = copyset.replicas.iter().chain(&copyset.leaving);
            replicas.map(move |replica| (copyset, replica))
        });
        all.filter(|(_, replica)| stores.contains(replica.store.as_str()))
            .collect()
    }
}

/// What health codes may be about.
#[derive(Default)]
struct Scope<'a> {
    servers: BTreeSet<&'a str>,
    stores: BTreeSet<&'a str>,
    copysets: BTreeSet<u32>,
}

impl<'a> Scope<'a> {
    /// Chunkservers, devices, and the copysets of the replicas there.
    fn of(
        servers: BTreeSet<&'a str>,
        stores: &BTreeSet<&'a str>,
        replicas: &[(&CopysetInfo, &ReplicaInfo)],
    ) -> Self {
        Self {
            servers,
            stores: stores.clone(),
            copysets: replicas.iter().map(|(copyset, _)| copyset.id).collect(),
        }
    }

    /// Codes that are about any of it. One that names more than it lists may be.
    fn codes<'b>(&self, codes: &'b [HealthCode]) -> Vec<(&'b HealthCode, bool)> {
        let about = codes.iter().filter_map(|code| {
            let names = |names: &[String], of: &BTreeSet<&str>| {
                names.iter().any(|it| of.contains(it.as_str()))
            };
            let is_about = names(&code.servers, &self.servers)
                || names(&code.stores, &self.stores)
                || code.copysets.iter().any(|id| self.copysets.contains(id));
            let named = [code.servers.len(), code.stores.len(), code.copysets.len()];
            let most = named.into_iter().max().unwrap_or(0);
            let is_cut = most > 0 && usize::try_from(code.count).unwrap_or(usize::MAX) > most;
            (is_about || is_cut).then_some((code, is_about))
        });
        about.collect()
    }
}

pub(crate) fn server(mds: &[String], name: &str, format: Format) -> Result<ExitCode, CliError> {
    let cluster = Cluster::look(mds, &format!("cannot show chunkserver {name}"))?;
    let found = cluster.servers.iter().find(|it| it.name == name);
    let server = found.ok_or_else(|| missing("chunkserver", name, "ogee server ls"))?;
    let is_its = |it: &&DeviceInfo| it.chunkserver == server.chunkserver;
    let devices: Vec<&DeviceInfo> = cluster.devices.iter().filter(is_its).collect();
    let stores: BTreeSet<&str> = devices.iter().map(|it| it.store.as_str()).collect();
    let replicas = cluster.replicas_on(&stores);
    let scope = Scope::of(BTreeSet::from([name]), &stores, &replicas);
    let codes = scope.codes(&cluster.codes);
    if format == Format::Json {
        line(&format!(
            "{:#}",
            json!({
                "server": topology::server_json(server),
                "devices": devices.iter().map(|it| topology::device_json(it)).collect::<Vec<_>>(),
                "replicas": replicas_json(&replicas), "health": codes_json(&codes),
            })
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let heard = match server.last_heartbeat_ms_ago {
        u64::MAX => "never".to_owned(),
        ms => format!("{} ago", span(Duration::from_millis(ms))),
    };
    facts(&[
        (
            "chunkserver",
            format!("{name} (number {})", server.chunkserver),
        ),
        ("zone", server.zone.clone()),
        ("host", server.server.clone()),
        ("state", topology::server_state(server)),
        ("heard of", heard),
        ("version", server.version.clone()),
        ("endpoints", server.endpoints.join(" ")),
        ("leads", server.leaders.to_string()),
        ("replicas", server.replicas.to_string()),
        ("capacity", filled(&devices)),
    ]);
    show_devices(&devices);
    show_replicas(&replicas);
    show_codes(&codes);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn device(mds: &[String], name: &str, format: Format) -> Result<ExitCode, CliError> {
    let cluster = Cluster::look(mds, &format!("cannot show device {name}"))?;
    let found = cluster.devices.iter().find(|it| it.store == name);
    let device = found.ok_or_else(|| missing("device", name, "ogee device ls"))?;
    let stores = BTreeSet::from([name]);
    let replicas = cluster.replicas_on(&stores);
    let leads = replicas.iter().filter(|(c, r)| c.leader_replica == r.id);
    let leads = leads.count();
    let servers = BTreeSet::from([device.chunkserver_name.as_str()]);
    let scope = Scope::of(servers, &stores, &replicas);
    let codes = scope.codes(&cluster.codes);
    if format == Format::Json {
        let json = json!({
            "device": topology::device_json(device), "leaders": leads,
            "replicas": replicas_json(&replicas), "health": codes_json(&codes),
        });
        line(&format!("{json:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![
        ("store", device.store.clone()),
        ("chunkserver", device.chunkserver_name.clone()),
        ("path", format!("{} (shard {})", device.path, device.shard)),
        ("class", topology::or_any(&device.class)),
        (
            "state",
            topology::device_state(topology::seen(device), device),
        ),
        ("leads", leads.to_string()),
        ("replicas", device.replicas.to_string()),
        ("capacity", filled(&[device])),
        (
            "log",
            format!(
                "{} of {}",
                human(device.log_used),
                human(device.log_capacity)
            ),
        ),
        ("writes take", topology::latency(device.write_latency_us)),
        ("flushes take", topology::latency(device.flush_latency_us)),
        ("reads take", topology::latency(device.read_latency_us)),
        ("failed requests", device.failures.to_string()),
        ("retired extents", device.retired_extents.to_string()),
        ("repaired", topology::repaired(device)),
        ("metadata verified", topology::verified(device)),
        (
            "scrubbed",
            topology::paused(device, topology::scrubbed(device.scrub.as_ref())),
        ),
        (
            "compared",
            topology::paused(device, topology::scrubbed(device.compare.as_ref())),
        ),
        (
            "background",
            topology::background(device.background.as_ref()),
        ),
    ];
    if !device.replaced_by.is_empty() {
        rows.push(("replaced by", device.replaced_by.clone()));
    }
    facts(&rows);
    show_replicas(&replicas);
    show_codes(&codes);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn zone(mds: &[String], name: &str, format: Format) -> Result<ExitCode, CliError> {
    let cluster = Cluster::look(mds, &format!("cannot show zone {name}"))?;
    let found = cluster.zones.iter().find(|it| it.name == name);
    let zone = found.ok_or_else(|| missing("zone", name, "ogee zone ls"))?;
    let servers = cluster.servers.iter().filter(|it| it.zone == name);
    let servers: Vec<&ServerInfo> = servers.collect();
    let names: BTreeSet<&str> = servers.iter().map(|it| it.name.as_str()).collect();
    let devices = cluster.devices.iter();
    let devices = devices.filter(|it| names.contains(it.chunkserver_name.as_str()));
    let devices: Vec<&DeviceInfo> = devices.collect();
    let stores: BTreeSet<&str> = devices.iter().map(|it| it.store.as_str()).collect();
    let replicas = cluster.replicas_on(&stores);
    let scope = Scope::of(names, &stores, &replicas);
    let codes = scope.codes(&cluster.codes);
    let (leads, count) = servers
        .iter()
        .fold((0, 0), |(l, r), it| (l + it.leaders, r + it.replicas));
    let pools: BTreeSet<&str> = replicas.iter().map(|(c, _)| c.pool.as_str()).collect();
    if format == Format::Json {
        let [used, capacity] = sums(&devices);
        let json = json!({
            "zone": {
                "name": name, "servers": zone.servers, "servers_online": zone.servers_online, "leaders": leads,
                "replicas": count, "used_bytes": used, "capacity_bytes": capacity, "pools": pools,
            },
            "servers": servers.iter().map(|it| topology::server_json(it)).collect::<Vec<_>>(),
            "health": codes_json(&codes),
        });
        line(&format!("{json:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    facts(&[
        ("zone", name.to_owned()),
        (
            "chunkservers",
            format!("{} of {} online", zone.servers_online, zone.servers),
        ),
        ("leads", leads.to_string()),
        ("replicas", count.to_string()),
        ("pools", pools.into_iter().collect::<Vec<_>>().join(" ")),
        ("capacity", filled(&devices)),
    ]);
    let rows = servers.iter().map(|it| {
        vec![
            it.name.clone(),
            it.server.clone(),
            topology::server_state(it),
            it.leaders.to_string(),
            it.replicas.to_string(),
        ]
    });
    section(
        "chunkservers",
        &["SERVER", "HOST", "STATE", "LEADERS", "REPLICAS"],
        rows.collect(),
    );
    show_codes(&codes);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pool(mds: &[String], name: &str, format: Format) -> Result<ExitCode, CliError> {
    let cluster = Cluster::look(mds, &format!("cannot show pool {name}"))?;
    let found = cluster.pools.iter().find(|it| it.name == name);
    let pool = found.ok_or_else(|| missing("pool", name, "ogee pool ls"))?;
    let copysets = cluster.copysets.iter().filter(|it| it.pool == name);
    let scope = Scope {
        copysets: copysets.clone().map(|it| it.id).collect(),
        ..Scope::default()
    };
    let codes = scope.codes(&cluster.codes);
    // Of each device: replicas of the pool there, and how many of them lead.
    let mut on: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    for copyset in copysets.clone() {
        for replica in &copyset.replicas {
            let (replicas, leaders) = on.entry(replica.store.as_str()).or_default();
            *replicas += 1;
            *leaders += u32::from(replica.id == copyset.leader_replica);
        }
    }
    let devices: Vec<(&DeviceInfo, (u32, u32))> = cluster
        .devices
        .iter()
        .filter_map(|it| Some((it, *on.get(it.store.as_str())?)))
        .collect();
    let led = copysets.clone().filter(|it| it.leader_replica != 0).count();
    let is_whole = |it: &&CopysetInfo| {
        let mut replicas = it.replicas.iter();
        it.leader_replica != 0 && replicas.all(|r| r.role == "voter" && r.state == "ok")
    };
    let whole = copysets.clone().filter(is_whole).count();
    if format == Format::Json {
        let devices = devices.iter().map(|(it, (replicas, leaders))| {
            json!({
                "store": it.store, "chunkserver": it.chunkserver_name, "path": it.path,
                "replicas": replicas, "leaders": leaders,
            })
        });
        let json = json!({
            "pool": topology::pool_json(pool), "copysets_led": led, "copysets_whole": whole,
            "devices": devices.collect::<Vec<_>>(), "health": codes_json(&codes),
        });
        line(&format!("{json:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    pool_facts(pool, led, whole);
    let rows = devices.iter().map(|(it, (replicas, leaders))| {
        vec![
            it.chunkserver_name.clone(),
            it.path.clone(),
            topology::device_state(topology::seen(it), it),
            leaders.to_string(),
            replicas.to_string(),
            filled(&[*it]),
            it.store.clone(),
        ]
    });
    let header = [
        "SERVER", "DEVICE", "STATE", "LEADERS", "REPLICAS", "USED", "STORE",
    ];
    section("devices that carry it", &header, rows.collect());
    show_codes(&codes);
    Ok(ExitCode::SUCCESS)
}

fn pool_facts(pool: &PoolInfo, led: usize, whole: usize) {
    let quota = match pool.quota {
        0 => "none".to_owned(),
        quota => human(quota),
    };
    let copysets = format!(
        "{}, {} formed, {led} led, {whole} with all their replicas",
        pool.copysets, pool.copysets_ready
    );
    let usable = format!(
        "{} free of {} for volumes, of {} in all ({} taken, by whichever pools)",
        human(pool.usable_free),
        human(pool.usable),
        human(pool.raw),
        human(pool.raw_used)
    );
    facts(&[
        ("pool", pool.name.clone()),
        ("replicas", pool.replicas.to_string()),
        ("class", topology::or_any(&pool.class)),
        ("copysets", copysets),
        ("volumes", pool.volumes.to_string()),
        ("promised", human(pool.promised)),
        ("quota", quota),
        ("used", format!("about {}", human(pool.used))),
        ("usable", usable),
        ("new volumes", topology::admits(pool)),
        ("scatter", topology::scatter(pool)),
    ]);
}

fn missing(kind: &str, name: &str, remedy: &str) -> CliError {
    let what = format!("{kind} {name} does not exist");
    CliError::new("OGEE-3206", &what, "", remedy).with_exit(Exit::NotFound)
}

fn facts(rows: &[(&str, String)]) {
    let rows = rows
        .iter()
        .map(|(key, value)| vec![(*key).to_owned(), value.clone()]);
    print(Format::Table, &Value::Null, &["", ""], rows.collect());
}

fn section(title: &str, header: &[&str], rows: Vec<Vec<String>>) {
    line("");
    line(title);
    print(Format::Table, &Value::Null, header, rows);
}

fn sums(devices: &[&DeviceInfo]) -> [u64; 2] {
    let used = devices
        .iter()
        .fold(0u64, |sum, it| sum.saturating_add(it.used));
    let all = devices
        .iter()
        .fold(0u64, |sum, it| sum.saturating_add(it.capacity));
    [used, all]
}

fn filled(devices: &[&DeviceInfo]) -> String {
    let [used, all] = sums(devices);
    format!("{} of {}", human(used), human(all))
}

fn show_devices(devices: &[&DeviceInfo]) {
    let rows = devices.iter().map(|it| {
        vec![
            it.path.clone(),
            topology::or_any(&it.class),
            topology::device_state(topology::seen(it), it),
            it.replicas.to_string(),
            topology::errors(it),
            filled(&[*it]),
            it.store.clone(),
        ]
    });
    let header = [
        "DEVICE",
        "CLASS",
        "STATE",
        "REPLICAS",
        topology::ERRORS,
        "USED",
        "STORE",
    ];
    section("devices", &header, rows.collect());
}

fn show_replicas(replicas: &[(&CopysetInfo, &ReplicaInfo)]) {
    let rows = replicas.iter().map(|(copyset, replica)| {
        vec![
            copyset.id.to_string(),
            copyset.pool.clone(),
            replica.id.to_string(),
            role(copyset, replica).to_owned(),
            replica.state.clone(),
            left(replica.eta_ms),
            replica.store.clone(),
        ]
    });
    let header = [
        "COPYSET", "POOL", "REPLICA", "ROLE", "STATE", "LEFT", "STORE",
    ];
    section("replicas", &header, rows.collect());
}

fn role<'a>(copyset: &CopysetInfo, replica: &'a ReplicaInfo) -> &'a str {
    match copyset.leader_replica == replica.id {
        true => "leader",
        false => &replica.role,
    }
}

fn show_codes(codes: &[(&HealthCode, bool)]) {
    let rows = codes.iter().map(|(code, is_about)| {
        let detail = match is_about {
            true => code.detail.clone(),
            false => format!("perhaps, among others: {}", code.detail),
        };
        vec![
            code.code.clone(),
            code.severity.clone(),
            detail,
            code.remedy.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    if rows.is_empty() {
        line("");
        line("no health code is about it");
        return;
    }
    section("health", &["CODE", "SEVERITY", "WHAT", "TRY"], rows);
}

fn replicas_json(replicas: &[(&CopysetInfo, &ReplicaInfo)]) -> Vec<Value> {
    let json = replicas.iter().map(|(copyset, replica)| {
        json!({
            "copyset": copyset.id, "pool": copyset.pool, "replica": replica.id, "store": replica.store,
            "role": replica.role, "state": replica.state, "leader": replica.id == copyset.leader_replica,
            "applied": replica.applied, "last_log": replica.last_log, "eta_ms": replica.eta_ms,
        })
    });
    json.collect()
}

fn codes_json(codes: &[(&HealthCode, bool)]) -> Vec<Value> {
    let json = codes.iter().map(|(code, is_about)| {
        json!({
            "code": code.code, "severity": code.severity, "detail": code.detail, "remedy": code.remedy,
            "certain": is_about,
        })
    });
    json.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_to_whom_they_are_about() {
        let code = |code: &str, count: u32| HealthCode {
            code: code.into(),
            count,
            ..HealthCode::default()
        };
        let offline = HealthCode {
            servers: vec!["cs1".into()],
            ..code("OGEE-1001", 1)
        };
        // The copyset of that number is another thing than the chunkserver of that name.
        let degraded = HealthCode {
            copysets: vec![1, 2],
            ..code("OGEE-1003", 2)
        };
        let many = HealthCode {
            copysets: (1..=256).collect(),
            ..code("OGEE-1010", 300)
        };
        let all = [offline, degraded, many, code("OGEE-1006", 1)];
        let told = |scope: &Scope<'_>| {
            let told = scope.codes(&all).into_iter();
            told.map(|(code, is_about)| (code.code.clone(), is_about))
                .collect::<Vec<_>>()
        };
        let server = Scope {
            servers: BTreeSet::from(["cs1"]),
            copysets: BTreeSet::from([300]),
            ..Scope::default()
        };
        let is = |code: &str, is_about: bool| (code.to_owned(), is_about);
        assert_eq!(
            told(&server),
            [is("OGEE-1001", true), is("OGEE-1010", false)]
        );
        let pool = Scope {
            copysets: BTreeSet::from([2]),
            ..Scope::default()
        };
        assert_eq!(told(&pool), [is("OGEE-1003", true), is("OGEE-1010", true)]);
    }
}
