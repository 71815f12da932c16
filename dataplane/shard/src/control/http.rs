//! `/metrics` and `/healthz`.

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
        encode_gauges(&mut encoder, &reports)
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
