//! Placement and scheduler on a simulated cluster: what plans cost, and how even they are.
//!
//! `cargo run --release -p ogee-control --example scale --features scale -- [--full] [--looks N] [--scatter N]`: 10,000 devices and
//! 1,000,000 copysets with `--full`, else a tenth of both. Exit code 1 if a bar is missed.

use std::process::ExitCode;

use ogee_control::scale::{Cluster, Figures, Shape};

/// A plan after a rack was lost.
const PLAN_MS_MAX: u64 = 10_000;
const MEMORY_MIB_MAX: u64 = 4096;
const UNEVEN_PERCENT_MAX: f64 = 5.0;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let is_full = args.iter().any(|arg| arg == "--full");
    let looks = number(&args, "--looks");
    let shape = Shape {
        zones: 20,
        servers: if is_full { 50 } else { 5 },
        devices: 10,
        copysets: if is_full { 1_000_000 } else { 100_000 },
        replica_bytes: 10 << 30,
        bandwidth: 100 << 20,
        moves_max: if is_full { 8192 } else { 1024 },
        moves_per_server_max: 20,
        moves_per_zone_max: if is_full { 8192 } else { 1024 },
        moves_per_device_max: 2,
        looks_max: looks.unwrap_or(100_000),
        scatter_width: number(&args, "--scatter").unwrap_or(0),
    };
    println!("{shape:?}");
    println!(
        "{:<22}{:>11}{:>11}{:>8}{:>11}{:>10}{:>10}{:>10}{:>8}{:>12}{:>9}",
        "",
        "first look",
        "longest",
        "looks",
        "all looks",
        "applied",
        "moves",
        "TiB",
        "hours",
        "replicas",
        "uneven"
    );
    let mut is_well = true;
    let mut tell = |figures: &Figures| {
        is_well &= print(figures);
    };
    let (mut cluster, built) = Cluster::build(shape);
    tell(&built);
    tell_scatter(&cluster);
    for scenario in [Cluster::lose_rack, Cluster::lose_devices, Cluster::grow] {
        tell(&scenario(&mut cluster));
        tell_scatter(&cluster);
    }
    let (ms, count) = cluster.leaders();
    println!("leaders: {count} transfers planned in {ms} ms");
    let memory = peak_mib();
    println!("peak memory: {} MiB", memory.unwrap_or(0));
    is_well &= memory.is_some_and(|mib| mib <= MEMORY_MIB_MAX);
    ExitCode::from(u8::from(!is_well))
}

fn number(args: &[String], flag: &str) -> Option<usize> {
    let at = args.iter().position(|arg| arg == flag)?;
    args.get(at + 1)?.parse().ok()
}

fn tell_scatter(cluster: &Cluster) {
    let width = cluster.scatter();
    println!(
        "    scatter width {} to {}, mean {:.1}; {} different sets of devices",
        width.least, width.most, width.mean, width.sets
    );
}

/// And whether it is as it should be.
fn print(figures: &Figures) -> bool {
    let (least, most) = figures.range;
    println!(
        "{:<22}{:>8} ms{:>8} ms{:>8}{:>8} ms{:>7} ms{:>10}{:>10.1}{:>8.1}{:>12}{:>7.1} %{}",
        figures.what,
        figures.first_ms,
        figures.longest_ms,
        figures.looks,
        figures.all_ms,
        figures.applied_ms,
        figures.moves,
        tib(figures.bytes),
        hours(figures.seconds),
        format!("{least}-{most}"),
        figures.uneven_percent,
        if figures.left > 0 {
            format!("  {} left", figures.left)
        } else {
            String::new()
        }
    );
    if figures.wanted > 0 {
        println!(
            "    one plan of all {} moves: {} ms",
            figures.wanted, figures.whole_ms
        );
    }
    let is_even = figures.uneven_percent <= UNEVEN_PERCENT_MAX;
    let longest_ms = figures.longest_ms.max(figures.whole_ms);
    let plans_fast = figures.what == "build" || longest_ms <= PLAN_MS_MAX;
    figures.left == 0 && is_even && plans_fast
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn tib(bytes: u64) -> f64 {
    bytes as f64 / (1u64 << 40) as f64
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn hours(seconds: u64) -> f64 {
    seconds as f64 / 3600.0
}

/// The most memory that this process has had.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
