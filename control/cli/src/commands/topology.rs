//! `ogee pool|zone|server|device`.

use super::ask;
use super::job::{ago, span};
use super::maintenance::until;
use super::show;
use crate::args::{Format, PoolCommand};
use crate::drive;
use crate::error::CliError;
use crate::output::{human, print};
use ogee_proto::service::{
    BackgroundReport, CreatePoolRequest, DeviceInfo, PoolInfo, PoolName, ScrubReport, ServerInfo,
    SetPoolRequest,
};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// Copysets of a pool for which nothing is said.
const COPYSETS_USUAL: u32 = 8;

pub(crate) fn pool(
    mds: &[String],
    what: PoolCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    let pools = match what {
        PoolCommand::Create {
            name,
            replicas,
            copysets,
            class,
            scatter_width,
        } => {
            let doing = format!("cannot create pool {name}");
            // 0: the metadata server knows how many there must be.
            let usual = if scatter_width == 0 {
                COPYSETS_USUAL
            } else {
                0
            };
            let request = CreatePoolRequest {
                name,
                replicas,
                copysets: copysets.unwrap_or(usual),
                class: class.map_or_else(String::new, |class| class.to_string()),
                scatter_width,
            };
            let made = ask(mds, &doing, async |client| {
                client.create_pool(request).await
            })?;
            check_width(Some(scatter_width), &made)?;
            vec![made]
        }
        PoolCommand::Set {
            name,
            allow_volumes,
            quota,
            weight,
            scatter_width,
        } => {
            let doing = format!("cannot change pool {name}");
            let request = SetPoolRequest {
                name,
                allow_volumes,
                quota,
                weight,
                scatter_width,
            };
            let set = ask(mds, &doing, async |client| client.set_pool(request).await)?;
            check_width(scatter_width, &set)?;
            vec![set]
        }
        PoolCommand::Rm { name } => {
            let doing = format!("cannot remove pool {name}");
            ask(mds, &doing, async |client| {
                client.remove_pool(PoolName { name }).await
            })?;
            return Ok(ExitCode::SUCCESS);
        }
        PoolCommand::Show { name } => return show::pool(mds, &name, format),
        PoolCommand::Ls => {
            ask(mds, "cannot list pools", async |client| {
                client.list_pools().await
            })?
            .pools
        }
    };
    show_pools(format, &pools);
    Ok(ExitCode::SUCCESS)
}

/// An older metadata server makes nothing of what it does not know, and says nothing.
fn check_width(asked: Option<u32>, pool: &PoolInfo) -> Result<(), CliError> {
    let (name, is) = (&pool.name, pool.scatter_width);
    let Some(asked) = asked.filter(|asked| *asked != is) else {
        return Ok(());
    };
    let what = format!("pool {name} has a scatter width of {is}, not {asked}; all else was done");
    let cause = "the leading metadata server is of a release that knows none";
    let remedy = format!(
        "upgrade the metadata servers (ogee mds ls), then ogee pool set {name} --scatter-width {asked}"
    );
    Err(CliError::new("OGEE-3410", &what, cause, &remedy))
}

fn show_pools(format: Format, pools: &[PoolInfo]) {
    let json = json!({"pools": pools.iter().map(pool_json).collect::<Vec<_>>()});
    let rows = pools.iter().map(|pool| {
        vec![
            pool.name.clone(),
            pool.replicas.to_string(),
            or_any(&pool.class),
            format!("{}/{}", pool.copysets_ready, pool.copysets),
            pool.volumes.to_string(),
            match pool.quota {
                0 => human(pool.promised),
                quota => format!("{} of {}", human(pool.promised), human(quota)),
            },
            human(pool.used),
            format!("{} free of {}", human(pool.usable_free), human(pool.usable)),
            human(pool.raw),
            admits(pool),
            scatter(pool),
        ]
    });
    print(
        format,
        &json,
        &[
            "POOL",
            "REPLICAS",
            "CLASS",
            "COPYSETS READY",
            "VOLUMES",
            "PROMISED",
            "USED",
            "USABLE",
            "RAW",
            "NEW VOLUMES",
            "SCATTER",
        ],
        rows.collect(),
    );
}

/// Which new volumes are made in it.
pub(crate) fn admits(pool: &PoolInfo) -> String {
    match (pool.allows_volumes, pool.weight) {
        (false, _) => "closed".to_owned(),
        (true, 0) => "if named".to_owned(),
        (true, weight) => format!("weight {weight}"),
    }
}

/// With how many others devices share copysets, and what is wanted.
pub(crate) fn scatter(pool: &PoolInfo) -> String {
    let PoolInfo {
        scatter_width,
        scatter_least,
        scatter_mean,
        scatter_most,
        ..
    } = pool;
    let is = format!("{scatter_least} to {scatter_most}, mean {scatter_mean:.1}");
    match scatter_width {
        0 => is,
        wanted => format!("{is}, wanted {wanted}"),
    }
}

/// A class, if there is one.
pub(crate) fn or_any(class: &str) -> String {
    match class {
        "" => "-".to_owned(),
        class => class.to_owned(),
    }
}

pub(crate) fn pool_json(pool: &PoolInfo) -> Value {
    json!({
        "name": pool.name, "replicas": pool.replicas, "copysets": pool.copysets,
        "copysets_ready": pool.copysets_ready, "volumes": pool.volumes,
        "promised_bytes": pool.promised, "quota_bytes": pool.quota,
        "class": pool.class, "allows_volumes": pool.allows_volumes, "weight": pool.weight,
        "scatter_width": pool.scatter_width, "scatter_least": pool.scatter_least,
        "scatter_mean": pool.scatter_mean, "scatter_most": pool.scatter_most,
        "device_sets": pool.device_sets, "used_bytes": pool.used, "usable_bytes": pool.usable,
        "free_bytes": pool.usable_free, "raw_bytes": pool.raw, "raw_used_bytes": pool.raw_used,
    })
}

pub(crate) fn zones(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let zones = ask(mds, "cannot list zones", async |client| {
        client.list_zones().await
    })?
    .zones;
    let json = zones.iter().map(|zone| {
        json!({"name": zone.name, "servers": zone.servers, "servers_online": zone.servers_online})
    });
    let json = json!({"zones": json.collect::<Vec<_>>()});
    let rows = zones.iter().map(|zone| {
        vec![
            zone.name.clone(),
            format!("{}/{}", zone.servers_online, zone.servers),
        ]
    });
    print(format, &json, &["ZONE", "SERVERS ONLINE"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn servers(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let doing = "cannot list chunkservers";
    let servers = ask(mds, doing, async |client| client.list_servers().await)?.servers;
    let json = servers.iter().map(server_json);
    let json = json!({"servers": json.collect::<Vec<_>>()});
    let rows = servers.iter().map(|server| {
        vec![
            server.name.clone(),
            server.zone.clone(),
            server_state(server),
            server.leaders.to_string(),
            server.replicas.to_string(),
            server.endpoints.join(" "),
        ]
    });
    let header = [
        "SERVER",
        "ZONE",
        "STATE",
        "LEADERS",
        "REPLICAS",
        "ENDPOINTS",
    ];
    print(format, &json, &header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn server_json(server: &ServerInfo) -> Value {
    json!({
        "id": server.chunkserver, "name": server.name, "zone": server.zone,
        "server": server.server, "online": server.online, "endpoints": server.endpoints,
        "version": server.version, "leaders": server.leaders, "replicas": server.replicas,
        "last_heartbeat_ms_ago": server.last_heartbeat_ms_ago,
        "state": server.state, "mark": server.mark,
        "absent_since_unix_ms": server.absent_since_unix_ms,
        "maintenance_until_unix_ms": server.maintenance_until_unix_ms,
    })
}

pub(crate) fn devices(mds: &[String], format: Format) -> Result<ExitCode, CliError> {
    let doing = "cannot list devices";
    let devices = ask(mds, doing, async |client| client.list_devices().await)?.devices;
    let json = devices.iter().map(device_json);
    let json = json!({"devices": json.collect::<Vec<_>>()});
    let rows = devices.iter().map(|device| {
        vec![
            device.chunkserver_name.clone(),
            device.path.clone(),
            or_any(&device.class),
            device_state(seen(device), device),
            device.replicas.to_string(),
            latency(device.write_latency_us),
            latency(device.read_latency_us),
            errors(device),
            paused(device, scrubbed(device.scrub.as_ref())),
            paused(device, scrubbed(device.compare.as_ref())),
            background(device.background.as_ref()),
            format!("{} of {}", human(device.used), human(device.capacity)),
            format!(
                "{} of {}",
                human(device.log_used),
                human(device.log_capacity)
            ),
            device.store.clone(),
        ]
    });
    let header = [
        "SERVER",
        "DEVICE",
        "CLASS",
        "STATE",
        "REPLICAS",
        "WRITE",
        "READ",
        ERRORS,
        "SCRUB",
        "COMPARED",
        "BACKGROUND",
        "USED",
        "LOG USED",
        "STORE",
    ];
    print(format, &json, &header, rows.collect());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn device_json(device: &DeviceInfo) -> Value {
    json!({
        "store": device.store, "chunkserver": device.chunkserver_name, "path": device.path,
        "class": device.class,
        "shard": device.shard, "state": device.state, "online": device.online,
        "capacity_bytes": device.capacity, "used_bytes": device.used,
        "log_capacity_bytes": device.log_capacity, "log_used_bytes": device.log_used,
        "mark": device.mark, "replicas": device.replicas,
        "absent_since_unix_ms": device.absent_since_unix_ms,
        "sick": device.sick, "sick_since_unix_ms": device.sick_since_unix_ms,
        "write_latency_us": device.write_latency_us, "flush_latency_us": device.flush_latency_us,
        "read_latency_us": device.read_latency_us, "failures": device.failures,
        "retired_extents": device.retired_extents, "replaced_by": device.replaced_by,
        "scrub": device.scrub.map(|scrub| json!({
            "read_bytes": scrub.read, "of_bytes": scrub.of, "took_ms": scrub.took_ms,
            "passes": scrub.passes, "ended_ms_ago": scrub.ended_ms_ago,
        })),
        "compare": device.compare.map(|compare| json!({
            "pieces": compare.read, "of_pieces": compare.of, "took_ms": compare.took_ms,
            "passes": compare.passes, "ended_ms_ago": compare.ended_ms_ago,
        })),
        "scrub_paused": device.scrub_paused,
        "background": device.background.map(|background| json!({
            "bytes_per_second": background.speed, "allowed_bytes_per_second": background.allowed,
            "limit_bytes_per_second": background.limit,
        })),
        "drive": device.drive.as_ref().map(drive::report_json),
        "repairs": device.repairs.map(|repairs| json!({
            "blocks": repairs.blocks, "metadata_pages": repairs.pages,
            "metadata_pages_anew": repairs.pages_anew,
        })),
        "light": device.light.map(|light| json!({
            "passes": light.passes, "copies": light.copies, "bad": light.bad, "unread": light.unread,
        })),
    })
}

/// How a chunkserver is, and what is wanted of it.
pub(crate) fn server_state(server: &ServerInfo) -> String {
    let words = state(&server.state, &server.mark, server.absent_since_unix_ms);
    match server.maintenance_until_unix_ms {
        0 => words,
        end => format!("{words}, maintenance for {}", span(until(end))),
    }
}

/// How a device is, what is held against it, and what is wanted of it.
pub(crate) fn device_state(seen: &str, device: &DeviceInfo) -> String {
    let mut words = state(seen, &device.mark, device.absent_since_unix_ms);
    if !device.sick.is_empty() {
        words = format!(
            "{words}, {} for {}",
            device.sick,
            ago(device.sick_since_unix_ms)
        );
    }
    if device.drive.is_some_and(|drive| drive.warnings != 0) {
        words = format!("{words}, warns");
    }
    words
}

/// The heading of [`errors`].
pub(crate) const ERRORS: &str = "ERRORS/RETIRED/REPAIRED";

/// Requests that it failed, extents that are never used again, and what was damaged there and was put right.
pub(crate) fn errors(device: &DeviceInfo) -> String {
    let repaired: u64 = repairs(device).iter().map(|(_, count)| count).sum();
    format!("{}/{}/{repaired}", device.failures, device.retired_extents)
}

/// What was damaged there and was put right, by what it was.
pub(crate) fn repaired(device: &DeviceInfo) -> String {
    let counts = repairs(device).map(|(what, count)| format!("{count} {what}"));
    counts.join(", ")
}

fn repairs(device: &DeviceInfo) -> [(&'static str, u64); 3] {
    let repairs = device.repairs.unwrap_or_default();
    [
        ("blocks", repairs.blocks),
        ("copies of metadata pages", repairs.pages),
        ("metadata pages written anew", repairs.pages_anew),
    ]
}

/// What was last seen of its metadata.
pub(crate) fn verified(device: &DeviceInfo) -> String {
    let light = device.light.unwrap_or_default();
    match light.passes {
        0 => "-".to_owned(),
        passes => format!(
            "{passes} times; of {} copies of pages {} stay bad, {} pages cannot be read",
            light.copies, light.bad, light.unread
        ),
    }
}

/// How a device is, as far as is known: the last word of a chunkserver that is offline says nothing of now.
pub(crate) fn seen(device: &DeviceInfo) -> &str {
    match device.online || device.state == "missing" {
        true => &device.state,
        false => "offline",
    }
}

pub(crate) fn paused(device: &DeviceInfo, progress: String) -> String {
    match device.scrub_paused {
        true => format!("paused at {progress}"),
        false => progress,
    }
}

/// How far a device has been read for what rots, or what leads there compared: of the pass under way its share and the time that is left at the
/// speed so far, or else when the last one ended.
pub(crate) fn scrubbed(scrub: Option<&ScrubReport>) -> String {
    let Some(scrub) = scrub else {
        return "-".to_owned();
    };
    if let Some(share) = scrub.read.saturating_mul(100).checked_div(scrub.of) {
        let left = (scrub.of - scrub.read.min(scrub.of)) as f64 / scrub.read.max(1) as f64;
        let left = Duration::from_millis(scrub.took_ms).mul_f64(left.min(1e6));
        return match scrub.read {
            0 => "begun".to_owned(),
            _ => format!("{share} %, {} left", span(left)),
        };
    }
    match scrub.passes {
        0 => "-".to_owned(),
        _ => format!(
            "done {} ago",
            span(Duration::from_millis(scrub.ended_ms_ago))
        ),
    }
}

/// What copies, comparisons and scrubbing do with it together, and what they may.
pub(crate) fn background(report: Option<&BackgroundReport>) -> String {
    let Some(report) = report else {
        return "-".to_owned();
    };
    format!("{}/s of {}/s", human(report.speed), human(report.allowed))
}

/// The mean of the newest seconds with requests.
pub(crate) fn latency(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        1..10_000 => format!("{us} us"),
        _ => format!("{} ms", us / 1000),
    }
}

/// How it is, what is wanted of it, and since when it or a part of it is away.
fn state(state: &str, mark: &str, since_unix_ms: u64) -> String {
    let mut words = vec![state.to_owned()];
    if !mark.is_empty() {
        words.push(mark.to_owned());
    }
    if since_unix_ms > 0 {
        words.push(format!("away for {}", ago(since_unix_ms)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{errors, repaired, scrubbed, verified};
    use ogee_proto::service::{DeviceInfo, LightReport, RepairReport, ScrubReport};

    #[test]
    fn what_was_repaired_is_in_one_number_and_by_what_it_was() {
        let device = DeviceInfo {
            failures: 3,
            retired_extents: 1,
            repairs: Some(RepairReport {
                blocks: 10,
                pages: 4,
                pages_anew: 2,
            }),
            light: Some(LightReport {
                passes: 5,
                copies: 812,
                bad: 1,
                unread: 2,
            }),
            ..DeviceInfo::default()
        };
        assert_eq!(errors(&device), "3/1/16");
        assert_eq!(
            repaired(&device),
            "10 blocks, 4 copies of metadata pages, 2 metadata pages written anew"
        );
        assert_eq!(
            verified(&device),
            "5 times; of 812 copies of pages 1 stay bad, 2 pages cannot be read"
        );
        // Of an older chunkserver nothing is known.
        let old = DeviceInfo::default();
        assert_eq!([errors(&old), verified(&old)], ["0/0/0", "-"]);
    }

    #[test]
    fn a_scrub_is_told_with_what_is_left() {
        assert_eq!(scrubbed(None), "-");
        assert_eq!(scrubbed(Some(&ScrubReport::default())), "-");
        let rests = ScrubReport {
            passes: 2,
            ended_ms_ago: 3 * 3_600_000,
            ..ScrubReport::default()
        };
        assert_eq!(scrubbed(Some(&rests)), "done 3 h ago");
        let goes_on = ScrubReport {
            read: 25,
            of: 100,
            took_ms: 86_400_000,
            ..rests
        };
        assert_eq!(scrubbed(Some(&goes_on)), "25 %, 3 d left");
        let begun = ScrubReport {
            read: 0,
            of: 100,
            ..goes_on
        };
        assert_eq!(scrubbed(Some(&begun)), "begun");
    }
}
