//! The end of the end: is anything left of the damage that was done?
//!
//! *Place*: after the judgement, when nobody asks for anything any more. *Owner*: the main task. *Invariants*: of what a store
//! uses, every copy of each metadata page and every block is read, from the disk itself: no counter of a process is believed. Damage
//! may be left where nothing is that anybody wants. Where stores were verified in use it is too late to find any
//! now; where they were not, one inspection has to make it whole.
//! *On failure*: what is left, and where.

use super::cluster::Cluster;
use super::judgement::audit;
use super::node::Node;
use ogee_device::{Device, OpenOptions};
use ogee_runtime::sim::world_time;
use ogee_store::{MetadataPlace, Store};
use std::time::Duration;

/// How long two passes over all metadata of each store may take.
const VERIFIED_WITHIN: Duration = Duration::from_secs(60);

/// Ends every process, and looks at the disks.
///
/// # Errors
/// What is damaged.
pub async fn check(cluster: &Cluster) -> Result<(), String> {
    await_verified(cluster).await?;
    for node in cluster.nodes() {
        node.end().await;
    }
    for node in cluster.nodes() {
        let (path, is_scrubbed) = (node.path(), node.is_scrubbed());
        let begun = world_time();
        let checked = audit(cluster, async move { check_disk(&path, is_scrubbed).await });
        let left = checked.await?.map_err(|what| {
            let host = node.host().get();
            format!("VIOLATION: damage is left on the disk of host {host}: {what}")
        })?;
        tracing::info!(host = node.host().get(), copies = left, took = ?(world_time() - begun), "SIM whole");
    }
    Ok(())
}

/// Until each store that is verified in use was so after the last damage: one pass may have been under way.
async fn await_verified(cluster: &Cluster) -> Result<(), String> {
    let passes = |node: &Node| -> Option<u64> {
        let report = node.report()?;
        Some(report.stores.first()?.light.passes)
    };
    let before: Vec<u64> = cluster
        .nodes()
        .iter()
        .map(|node| passes(node).unwrap_or(0))
        .collect();
    let are_verified = || {
        let nodes = cluster.nodes().iter().zip(&before);
        nodes
            .filter(|(node, _)| node.is_scrubbed())
            .all(|(node, before)| passes(node).is_some_and(|now| now >= before + 2))
    };
    let what = "the metadata of each store is verified twice";
    cluster.until(VERIFIED_WITHIN, what, are_verified).await
}

/// How many copies of pages were looked at.
async fn check_disk(path: &str, is_scrubbed: bool) -> Result<u64, String> {
    let device = Device::open(path, OpenOptions { create: None }).await;
    let device = device.map_err(|error| error.to_string())?;
    let store = Store::open(&device).await;
    let store = store.map_err(|error| error.to_string())?;
    inspect(&store).await?;
    let (opened, first) = (store.open_stats(), store.counters());
    let is_whole = opened.pages_healed == 0 && opened.superblocks_agree;
    let found = first.metadata_suspects + first.metadata_repairs + first.metadata_rewrites;
    if is_scrubbed && (!is_whole || found > 0) {
        return Err(format!(
            "though its metadata was verified in use, {opened:?} and {first:?}"
        ));
    }
    inspect(&store).await?;
    let again = store.counters();
    if again.metadata_suspects != first.metadata_suspects
        || again.metadata_repairs != first.metadata_repairs
    {
        return Err(format!(
            "one inspection does not make metadata whole: {first:?}, then {again:?}"
        ));
    }
    check_blocks(&store).await?;
    Ok(again.metadata_copies_checked)
}

async fn inspect(store: &Store) -> Result<(), String> {
    let mut at = Some(MetadataPlace::default());
    while let Some(place) = at {
        let inspected = store.inspect_at_leisure(place).await;
        at = inspected.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn check_blocks(store: &Store) -> Result<(), String> {
    for group in store.groups() {
        for key in store.chunks(group.copyset) {
            let bad = store.scrub(group.copyset, key).await;
            let bad = bad.map_err(|error| error.to_string())?;
            if !bad.is_empty() {
                return Err(format!(
                    "blocks {bad:?} of chunk {key} of {}",
                    group.copyset
                ));
            }
        }
    }
    Ok(())
}
