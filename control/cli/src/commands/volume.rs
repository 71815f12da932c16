//! `ogee volume`.

use super::ask;
use super::confirm::confirm;
use crate::args::{Format, VolumeCommand, VolumeCreateArgs, VolumeLsArgs, VolumeSetArgs};
use crate::error::{CliError, chain};
use crate::output::{human, print};
use ogee_client::{ControlError, MdsClient};
use ogee_proto::layout::StripeLayout;
use ogee_proto::service::{
    CopysetInfo, CreateVolumeRequest, DetachRequest, Label, ListVolumesRequest,
    RemoveVolumeRequest, RenameRequest, ResizeVolumeRequest, SetVolumeRequest, VolumeInfo,
    VolumeMap, VolumeName,
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
        VolumeCommand::Create(args) => create(mds, args, format)?,
        VolumeCommand::Set(args) => set(mds, args, format)?,
        VolumeCommand::Ls(args) => {
            let wanted = wanted(args);
            let volumes = ask(mds, "cannot list volumes", async |c| all(c, wanted).await)?;
            list(format, &volumes);
        }
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
                ..ResizeVolumeRequest::default()
            };
            show(
                format,
                &ask(mds, &doing, async |client| client.resize(request).await)?,
            );
        }
        VolumeCommand::Rename { from, to } => {
            let doing = format!("cannot rename volume {from} to {to}");
            let request = RenameRequest {
                from,
                to,
                ..RenameRequest::default()
            };
            let volume = ask(mds, &doing, async |c| c.rename(request).await)?;
            show(format, &volume);
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

fn create(mds: &[String], args: VolumeCreateArgs, format: Format) -> Result<(), CliError> {
    let VolumeCreateArgs {
        name,
        size,
        replicas,
        stripe_unit,
        stripe_count,
        pool,
        owner,
        labels,
    } = args;
    let doing = format!("cannot create volume {name}");
    let request = CreateVolumeRequest {
        name,
        size: size.get(),
        replicas,
        stripe_unit: stripe_unit.map_or(0, ByteLen::get),
        stripe_count: stripe_count.unwrap_or(0),
        pool,
        owner,
        labels: self::labels(labels),
        ..CreateVolumeRequest::default()
    };
    let volume = ask(mds, &doing, async |client| client.create(request).await)?;
    show(format, &volume);
    Ok(())
}

fn set(mds: &[String], args: VolumeSetArgs, format: Format) -> Result<(), CliError> {
    let VolumeSetArgs {
        name,
        owner,
        labels,
        unlabel,
    } = args;
    let doing = format!("cannot change volume {name}");
    let request = SetVolumeRequest {
        name,
        owner,
        labels: self::labels(labels),
        unlabel,
        ..SetVolumeRequest::default()
    };
    let volume = ask(mds, &doing, async |client| client.set(request).await)?;
    show(format, &volume);
    Ok(())
}

/// Takes the volume from whoever has it, and fences them off: they may be unable to hear of it.
fn detach(mds: &[String], name: &str) -> Result<(), CliError> {
    let doing = format!("cannot detach volume {name}");
    let request = DetachRequest {
        name: name.to_owned(),
        force: true,
        ..DetachRequest::default()
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

fn labels(from: Vec<(String, String)>) -> Vec<Label> {
    let from = from.into_iter();
    from.map(|(key, value)| Label { key, value }).collect()
}

fn wanted(args: VolumeLsArgs) -> ListVolumesRequest {
    ListVolumesRequest {
        prefix: args.prefix,
        owner: args.owner,
        labels: labels(args.labels),
        ..ListVolumesRequest::default()
    }
}

/// Every page of the list.
pub(super) async fn all(
    client: MdsClient,
    mut wanted: ListVolumesRequest,
) -> Result<Vec<VolumeInfo>, ControlError> {
    let mut volumes = Vec::new();
    loop {
        let page = client.list(wanted.clone()).await?;
        volumes.extend(page.volumes);
        if page.next.is_empty() {
            return Ok(volumes);
        }
        wanted.after = page.next;
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
        let request = RemoveVolumeRequest {
            name,
            ..RemoveVolumeRequest::default()
        };
        client.remove(request).await
    })?;
    Ok(())
}

pub(super) fn volume_json(volume: &VolumeInfo) -> Value {
    let labels = volume.labels.iter();
    let labels: BTreeMap<&str, &str> = labels
        .map(|it| (it.key.as_str(), it.value.as_str()))
        .collect();
    json!({
        "id": volume.id, "name": volume.name, "size_bytes": volume.size,
        "replicas": volume.replicas, "stripe_unit_bytes": volume.stripe_unit,
        "stripe_count": volume.stripe_count, "pool": volume.pool, "owner": volume.owner,
        "epoch": volume.epoch, "created_unix_ms": volume.created_unix_ms,
        "attached": volume.attached, "attached_host": volume.attached_host,
        "copyset_count": volume.copyset_count, "labels": labels,
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
