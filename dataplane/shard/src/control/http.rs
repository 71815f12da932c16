//! `/metrics` and `/healthz`.

use super::drives;
use crate::config::ChunkserverConfig;
use crate::error::ShardError;
use crate::order::ShardReport;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use ogee_group::{BUCKETS, HistogramSnapshot};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

type Latest = Arc<Mutex<Vec<ShardReport>>>;

/// Serves the shards' latest reports, if an address is configured.
pub(super) async fn start(
    config: &ChunkserverConfig,
    latest: Latest,
) -> Result<JoinHandle<()>, ShardError> {
    let Some(address) = config.metrics else {
        return Ok(tokio::spawn(async {}));
    };
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| ShardError::Metrics { address, source })?;
    let mut registry = Registry::with_prefix("ogee_chunkserver");
    registry.register_collector(Box::new(Reports { latest }));
    let registry = Arc::new(registry);
    let app = Router::new()
        .route("/metrics", get(move || metrics(registry.clone())))
        .route("/healthz", get(|| async { "ok\n" }));
    Ok(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, app).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    }))
}

async fn metrics(registry: Arc<Registry>) -> Result<String, StatusCode> {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => Ok(text),
        Err(fmt::Error) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

#[derive(Debug)]
struct Reports {
    latest: Latest,
}

impl Collector for Reports {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reports = self.latest.lock().map_err(|_poisoned| fmt::Error)?.clone();
        let Some(first) = reports.first() else {
            return Ok(());
        };
        for (row, (name, _)) in first.metrics.stages.iter().enumerate() {
            let help = "Latency in seconds";
            let name = format!("{name}_seconds");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
            for report in &reports {
                let Some((_, stage)) = report.metrics.stages.get(row) else {
                    continue;
                };
                let labels = [("shard", report.shard.to_string())];
                Stage(*stage).encode(family.encode_family(&labels)?)?;
            }
        }
        for (row, (name, help, _)) in first.metrics.counters.iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for report in &reports {
                let Some((_, _, value)) = report.metrics.counters.get(row) else {
                    continue;
                };
                let labels = [("shard", report.shard.to_string())];
                ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
            }
        }
        for (row, (name, help, _)) in first.metrics.gauges.iter().enumerate() {
            let value = |report: &ShardReport| report.metrics.gauges.get(row).map(|row| row.2);
            encode_gauge(&mut encoder, (name, help), &reports, value)?;
        }
        encode_gauges(&mut encoder, &reports)?;
        drives::encode(&mut encoder, &reports)
    }
}

fn encode_gauges(
    encoder: &mut DescriptorEncoder<'_>,
    reports: &[ShardReport],
) -> Result<(), fmt::Error> {
    type Value = fn(&ShardReport) -> u64;
    let rows: [(&str, &str, Value); 7] = [
        ("log_used_bytes", "Log in use", |report| {
            report.stores.iter().map(|store| store.log_used.get()).sum()
        }),
        ("used_bytes", "Extents in use", |report| {
            report.stores.iter().map(|store| store.used.get()).sum()
        }),
        ("leaders", "Groups led", |report| {
            report
                .replicas
                .iter()
                .filter(|replica| replica.group.is_leader)
                .count() as u64
        }),
        ("quiet_groups", "Replicas without ticks", |report| {
            let groups = report.replicas.iter().map(|replica| replica.group);
            groups.filter(|group| group.is_quiet).count() as u64
        }),
        ("checkpoints", "Checkpoints made", |report| {
            report.metrics.keeper.checkpoints
        }),
        ("written_back_blocks", "Blocks written back", |report| {
            report.metrics.keeper.blocks_written
        }),
        (
            "adopted_blocks",
            "Blocks that stayed where they were written at first",
            |report| report.metrics.keeper.blocks_adopted,
        ),
    ];
    for (name, help, value) in rows {
        encode_gauge(encoder, (name, help), reports, |report| Some(value(report)))?;
    }
    Ok(())
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    reports: &[ShardReport],
    value: impl Fn(&ShardReport) -> Option<u64>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for report in reports {
        let Some(value) = value(report) else { continue };
        let labels = [("shard", report.shard.to_string())];
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Our histograms carry no exemplars.
type NoLabels = [(&'static str, &'static str); 0];

struct Stage(HistogramSnapshot);

impl EncodeMetric for Stage {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let buckets: Vec<(f64, u64)> = (0..BUCKETS)
            .map(|bucket| {
                (
                    HistogramSnapshot::upper_bound_s(bucket),
                    self.0.counts[bucket],
                )
            })
            .collect();
        let sum = std::time::Duration::from_micros(self.0.sum_us).as_secs_f64();
        encoder.encode_histogram::<NoLabels>(sum, self.0.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::Reports;
    use crate::order::{
        BackgroundStatus, DriveUnknown, LightStatus, RepairStatus, ScrubStatus, ShardMetrics,
        ShardReport, StoreStatus,
    };
    use ogee_device::{DriveHealth, NvmeVitals, Pace};
    use ogee_proto::drive::DriveWarnings;
    use ogee_proto::id::StoreId;
    use ogee_proto::unit::ByteLen;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    fn store(path: &str, vitals: Option<NvmeVitals>) -> StoreStatus {
        StoreStatus {
            store: StoreId::from_bytes([1; 16]),
            shard: 3,
            path: path.to_owned(),
            class: None,
            capacity: ByteLen::ZERO,
            used: ByteLen::ZERO,
            log_capacity: ByteLen::ZERO,
            log_used: ByteLen::ZERO,
            state: "ok",
            retired: 0,
            pace: Pace::default(),
            failures: 0,
            scrub: ScrubStatus::default(),
            compare: ScrubStatus::default(),
            is_paused: false,
            background: BackgroundStatus::default(),
            vitals,
            drive_unknown: DriveUnknown::Known,
            repairs: RepairStatus::default(),
            light: LightStatus::default(),
        }
    }

    fn page(stores: Vec<StoreStatus>) -> String {
        let report = ShardReport {
            shard: 3,
            stores,
            replicas: Vec::new(),
            volumes_removed: Vec::new(),
            replicas_removed: Vec::new(),
            lost: Vec::new(),
            disputed: Vec::new(),
            volumes: None,
            metrics: ShardMetrics::default(),
        };
        let latest = Arc::new(Mutex::new(vec![report]));
        let mut registry = Registry::with_prefix("ogee_chunkserver");
        registry.register_collector(Box::new(Reports { latest }));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a page");
        text
    }

    #[test]
    fn each_drive_has_rows_of_its_own_and_hosts_without_one_have_none() {
        assert!(!page(vec![store("/dev/sda", None)]).contains("nvme_"));
        let silent = NvmeVitals {
            health: None,
            age: Duration::ZERO,
            is_old: true,
            refusals: 2,
        };
        let hot = NvmeVitals {
            health: Some(DriveHealth {
                warnings: DriveWarnings::new(3),
                celsius: 81,
                spare_percent: 7,
                spare_threshold_percent: 10,
                used_percent: 103,
                bytes_read: 0,
                bytes_written: 0,
                power_cycles: 0,
                power_on_hours: 9,
                unsafe_shutdowns: 4,
                media_errors: 5,
                error_log_entries: 6,
            }),
            age: Duration::from_secs(8),
            is_old: false,
            refusals: 0,
        };
        let text = page(vec![
            store("nvme:a", Some(hot)),
            store("nvme:b", Some(silent)),
        ]);
        let of = |device: &str| format!("{{shard=\"3\",device=\"{device}\"}}");
        for (name, value) in [
            ("critical_warnings", 3),
            ("temperature_celsius", 81),
            ("spare_percent", 7),
            ("spare_threshold_percent", 10),
            ("used_percent", 103),
            ("power_on_hours", 9),
            ("media_errors_total", 5),
            ("error_log_entries_total", 6),
            ("unsafe_shutdowns_total", 4),
            ("health_age_seconds", 8),
            ("health_refusals_total", 0),
        ] {
            let row = format!("ogee_chunkserver_nvme_{name}{} {value}\n", of("nvme:a"));
            assert!(text.contains(&row), "{row}{text}");
        }
        let of_silent: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("nvme:b"))
            .collect();
        let row = format!(
            "ogee_chunkserver_nvme_health_refusals_total{} 2",
            of("nvme:b")
        );
        assert_eq!(of_silent, [row]);
    }
}
