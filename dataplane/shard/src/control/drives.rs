//! Metrics of NVMe drives: what they say of their own health.
//!
//! *Place*: of `/metrics`. *Owner*: the latest reports. *Invariants*: one row for each drive, by shard and device; a drive
//! that has not told anything has none but how often it did not tell. A host without such drives has no rows.
//! *On failure*: that of the encoder.

use crate::order::{ShardReport, StoreStatus};
use ogee_device::{DriveHealth, NvmeVitals};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;

type OfHealth = fn(&DriveHealth) -> i64;

const GAUGES: [(&str, &str, OfHealth); 6] = [
    (
        "nvme_critical_warnings",
        "What the drive warns of: bits 1 spare, 2 temperature, 4 reliability, 8 read-only, 16 backup, 32 persistent memory",
        |health| health.warnings.bits().into(),
    ),
    (
        "nvme_temperature_celsius",
        "Temperature of the drive",
        |health| health.celsius.into(),
    ),
    (
        "nvme_spare_percent",
        "Spare blocks that the drive has left",
        |health| health.spare_percent.into(),
    ),
    (
        "nvme_spare_threshold_percent",
        "Below so many spare blocks the drive warns",
        |health| health.spare_threshold_percent.into(),
    ),
    (
        "nvme_used_percent",
        "Wear of the drive, of its rated life; may be beyond 100",
        |health| health.used_percent.into(),
    ),
    (
        "nvme_power_on_hours",
        "Hours that the drive was powered on",
        |health| i64::try_from(health.power_on_hours).unwrap_or(i64::MAX),
    ),
];

type Count = fn(&DriveHealth) -> u64;

const COUNTERS: [(&str, &str, Count); 3] = [
    (
        "nvme_media_errors",
        "Times that the drive found data it could not read",
        |health| health.media_errors,
    ),
    (
        "nvme_error_log_entries",
        "Entries that the drive's error log has had",
        |health| health.error_log_entries,
    ),
    (
        "nvme_unsafe_shutdowns",
        "Times that the drive lost power without being told",
        |health| health.unsafe_shutdowns,
    ),
];

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    reports: &[ShardReport],
) -> Result<(), fmt::Error> {
    let stores = || reports.iter().flat_map(|report| &report.stores);
    let drives = || stores().filter_map(|store| Some((store, store.vitals?)));
    let told = || drives().filter_map(|(store, vitals)| Some((store, vitals.health?)));
    for (name, help, value) in GAUGES {
        let rows = told().map(|(store, health)| (store, ConstGauge::new(value(&health))));
        family(encoder, (name, help, MetricType::Gauge), rows)?;
    }
    for (name, help, value) in COUNTERS {
        let rows = told().map(|(store, health)| (store, ConstCounter::new(value(&health))));
        family(encoder, (name, help, MetricType::Counter), rows)?;
    }
    let age = |(store, vitals): (_, NvmeVitals)| {
        let seconds = vitals.health.map(|_| vitals.age.as_secs())?;
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Some((store, ConstGauge::new(seconds)))
    };
    let named = (
        "nvme_health_age_seconds",
        "How long ago the drive told how it fares",
        MetricType::Gauge,
    );
    family(encoder, named, drives().filter_map(age))?;
    let refused = |(store, vitals): (_, NvmeVitals)| (store, ConstCounter::new(vitals.refusals));
    let named = (
        "nvme_health_refusals",
        "Times that the drive was asked how it fares, and did not tell",
        MetricType::Counter,
    );
    family(encoder, named, drives().map(refused))
}

fn family<'a, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    rows: impl Iterator<Item = (&'a StoreStatus, M)>,
) -> Result<(), fmt::Error> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (store, metric) in rows {
        let labels = [
            ("shard", store.shard.to_string()),
            ("device", store.path.clone()),
        ];
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
