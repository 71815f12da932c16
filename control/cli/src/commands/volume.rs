//! `ogee volume`.

use super::ask;
use super::confirm::confirm;
use crate::args::{Format, VolumeCommand};
use crate::error::{CliError, chain};
use crate::output::{human, print};
use ogee_client::{ControlError, MdsClient};
use ogee_proto::layout::StripeLayout;
use ogee_proto::service::{
    CopysetInfo, CreateVolumeRequest, DetachRequest, ListVolumesRequest, ResizeVolumeRequest,
    VolumeInfo, VolumeMap, VolumeName,
};
use ogee_proto::unit::ByteLen;
use ogee_transport::Transport;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;

pub(crate) fn run(
    mds: &[String],
    what: VolumeCommand,
    format: Format,
) -> Result<ExitCode, CliError> {
    match what {
        VolumeCommand::Create {
            name,
            size,
            replicas,
            stripe_unit,
            stripe_count,
            pool,
            owner,
        } => {
            let doing = format!("cannot create volume {name}");
            let request = CreateVolumeRequest {
                name,
                size: size.get(),
                replicas,
                stripe_unit: stripe_unit.map_or(0, ByteLen::get),
                stripe_count: stripe_count.unwrap_or(0),
                pool,
                owner,
            };
            show(
                format,
                &ask(mds, &doing, async |client| client.create(request).await)?,
            );
        }
        VolumeCommand::Ls => list(format, &ask(mds, "cannot list volumes", all)?),
        VolumeCommand::Show { name } => {
            let doing = format!("cannot show volume {name}");
            show(
                format,
                &ask(mds, &doing, async |c| c.show(VolumeName { name }).await)?,
            );
        }
        VolumeCommand::Resize { name, size } => {
            let doing = format!("cannot resize volume {name}");
            let request = ResizeVolumeRequest {
                name,
                size: size.get(),
            };
            show(
                format,
                &ask(mds, &doing, async |client| client.resize(request).await)?,
            );
        }
        VolumeCommand::Locate { name } => {
            let doing = format!("cannot locate volume {name}");
            locate(
                format,
                &ask(mds, &doing, async |c| c.locate(VolumeName { name }).await)?,
            );
        }
        VolumeCommand::Detach { name } => detach(mds, &name)?,
        VolumeCommand::Rm { name, yes } => remove(mds, name, yes)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes the volume from whoever has it, and fences them off: they may be unable to hear of it.
fn detach(mds: &[String], name: &str) -> Result<(), CliError> {
    let doing = format!("cannot detach volume {name}");
    let request = DetachRequest {
        name: name.to_owned(),
        client: 0,
        epoch: 0,
        force: true,
    };
    ask(mds, &doing, async |client| client.detach(request).await)?;
    ogee_runtime::executor::block_on(fence(mds, name))
}

/// Attaches for reading, which shuts every earlier writer out, and gives the volume up again.
async fn fence(mds: &[String], name: &str) -> Result<(), CliError> {
    let volume = super::bench::open(mds, name, true, Transport::default()).await?;
    let unsealed: Vec<String> = volume.unsealed().iter().map(ToString::to_string).collect();
    let closed = volume.close().await;
    if !unsealed.is_empty() {
        return Err(CliError::new(
            "OGEE-3403",
            &format!("volume {name} is detached, but not everywhere fenced"),
            &format!("these copysets did not answer: {}", unsealed.join(", ")),
            "until they do, its former user can still write there: ogee copyset show, then \
             repeat ogee volume detach",
        ));
    }
    closed.map_err(|error| {
        CliError::new(
            "OGEE-3402",
            &format!("volume {name} is fenced, but still shows as attached"),
            &chain(&error),
            "ogee volume show names its state",
        )
    })
}

/// Every page of the list.
async fn all(client: MdsClient) -> Result<Vec<VolumeInfo>, ControlError> {
    let mut volumes = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.list(ListVolumesRequest { after, limit: 0 }).await?;
        volumes.extend(page.volumes);
        after = page.next;
        if after.is_empty() {
            return Ok(volumes);
        }
    }
}

fn remove(mds: &[String], name: String, yes: bool) -> Result<(), CliError> {
    if !yes {
        confirm(
            &name,
            &format!("All data of volume {name} will be gone. Type its name to remove it: "),
            &format!("volume {name} was not removed"),
        )?;
    }
    let doing = format!("cannot remove volume {name}");
    ask(mds, &doing, async |client| {
        client.remove(VolumeName { name }).await
    })?;
    Ok(())
}

fn volume_json(volume: &VolumeInfo) -> Value {
    json!({
        "id": volume.id, "name": volume.name, "size_bytes": volume.size,
        "replicas": volume.replicas, "stripe_unit_bytes": volume.stripe_unit,
        "stripe_count": volume.stripe_count, "pool": volume.pool, "owner": volume.owner,
        "epoch": volume.epoch, "created_unix_ms": volume.created_unix_ms,
        "attached": volume.attached, "attached_host": volume.attached_host,
        "copyset_count": volume.copyset_count,
    })
}

fn row(volume: &VolumeInfo) -> Vec<String> {
    let attached = if volume.attached {
        volume.attached_host.as_str()
    } else {
        "-"
    };
    vec![
        volume.name.clone(),
        human(volume.size),
        volume.replicas.to_string(),
        volume.pool.clone(),
        format!("{} × {}", human(volume.stripe_unit), volume.stripe_count),
        attached.to_owned(),
    ]
}

const HEADER: [&str; 6] = ["VOLUME", "SIZE", "REPLICAS", "POOL", "STRIPE", "ATTACHED"];

fn show(format: Format, volume: &VolumeInfo) {
    print(format, &volume_json(volume), &HEADER, vec![row(volume)]);
}

fn list(format: Format, volumes: &[VolumeInfo]) {
    let json = json!({"volumes": volumes.iter().map(volume_json).collect::<Vec<_>>()});
    print(format, &json, &HEADER, volumes.iter().map(row).collect());
}

fn locate(format: Format, map: &VolumeMap) {
    let places = chunk_places(map);
    let json = places.iter().map(|(index, copyset)| {
        let (leader, followers) = roles(copyset);
        json!({"index": index, "copyset": copyset.id, "leader": leader, "followers": followers})
    });
    let json = json!({"chunks": json.collect::<Vec<_>>()});
    let rows = places.iter().map(|(index, copyset)| {
        let (leader, followers) = roles(copyset);
        let leader = leader.unwrap_or_else(|| String::from("none"));
        vec![
            index.to_string(),
            copyset.id.to_string(),
            leader,
            followers.join(" "),
        ]
    });
    print(
        format,
        &json,
        &["CHUNK", "COPYSET", "LEADER", "FOLLOWERS"],
        rows.collect(),
    );
}

/// The copyset of every chunk, by the map's rule.
fn chunk_places(map: &VolumeMap) -> Vec<(u64, &CopysetInfo)> {
    let copysets: BTreeMap<u32, &CopysetInfo> = map.copysets.iter().map(|c| (c.id, c)).collect();
    let Some(volume) = &map.volume else {
        return Vec::new();
    };
    let layout = StripeLayout::new(volume.stripe_unit, u64::from(volume.stripe_count));
    let chunks = layout
        .unwrap_or_default()
        .chunk_count(ByteLen::new(volume.size));
    let place = |index: u64| {
        let started =
            |segment: &&ogee_proto::service::MapSegment| u64::from(segment.first_chunk) <= index;
        let segment = map.segments.iter().rfind(started)?;
        let turn = (index - u64::from(segment.first_chunk)) % segment.copysets.len().max(1) as u64;
        let copyset = segment.copysets.get(usize::try_from(turn).ok()?)?;
        Some((index, *copysets.get(copyset)?))
    };
    (0..chunks).filter_map(place).collect()
}

/// Names of the leader, if one is known, and of the others.
fn roles(copyset: &CopysetInfo) -> (Option<String>, Vec<String>) {
    let leads = |id: u64| copyset.leader_replica != 0 && id == copyset.leader_replica;
    let leader = copyset.replicas.iter().find(|replica| leads(replica.id));
    let others = copyset.replicas.iter().filter(|replica| !leads(replica.id));
    (
        leader.map(|replica| replica.chunkserver_name.clone()),
        others
            .map(|replica| replica.chunkserver_name.clone())
            .collect(),
    )
}
