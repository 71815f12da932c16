//! One run.

use super::events::Events;
use super::targets::{close_all, open_all};
use super::watch::Watcher;
use crate::args::{Format, LoadArgs};
use crate::error::{CliError, Exit, chain};
use crate::output::{line, print};
use crate::settings::wrong;
use ogee_perf::{Report, ScenarioError, Spec, Workload};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(super) fn run(mds: &[String], args: &LoadArgs, format: Format) -> Result<ExitCode, CliError> {
    let spec = spec(args)?;
    let name = args.targets.join(",");
    let workload = spec.workload(name).map_err(|error| bad_scenario(&error))?;
    let events = Events::new(args, spec.event)?;
    let mut watcher = Watcher::new(args, events)?;
    let load = load(mds, args, &workload, &mut watcher);
    let poll = Duration::from_micros(args.poll_us);
    let outcome = ogee_runtime::executor::block_on_spinning(poll, load);
    let mut report = match outcome {
        Ok(report) => report,
        Err(error) => {
            // What happens to the cluster must not go on behind the back of the caller.
            let _ = watcher.finish(&mut Report::default());
            return Err(error);
        }
    };
    watcher.finish(&mut report)?;
    write_files(args, &report)?;
    match format {
        Format::Json => line(&format!("{:#}", report.to_json())),
        Format::Table => line(&format!("{report}")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn load(
    mds: &[String],
    args: &LoadArgs,
    workload: &Workload,
    watcher: &mut Watcher,
) -> Result<Report, CliError> {
    let targets = open_all(mds, args, workload).await?;
    let report = ogee_perf::run(&targets, workload, watcher).await;
    let closed = close_all(targets).await;
    let report = report.map_err(|error| {
        let what = format!("the load on {} failed", workload.name);
        match &error {
            ogee_perf::PerfError::Workload(cause) => {
                wrong(&what, &chain(cause), "ogee bench --help names every flag")
            }
            other => CliError::new(
                "OGEE-3401",
                &what,
                &chain(other),
                "ogee status shows what is wrong",
            ),
        }
    })?;
    closed?;
    Ok(report)
}

/// The flags over the scenario.
fn spec(args: &LoadArgs) -> Result<Spec, CliError> {
    let scenario = match &args.scenario {
        Some(name) => Spec::load(name).map_err(|error| bad_scenario(&error))?,
        None => Spec::default(),
    };
    let flags = Spec {
        rw: args.rw,
        rwmixread: args.rwmixread,
        bs: args.bs,
        bssplit: args.bssplit.clone(),
        iodepth: args.iodepth,
        numjobs: args.numjobs,
        runtime: args.runtime,
        io_size: args.io_size,
        ramp_time: args.ramp_time,
        rate_iops: args.rate_iops,
        rate: args.rate,
        arrival_rate: args.arrival_rate,
        rate_process: args.rate_process,
        random_distribution: args.random_distribution,
        offset: args.offset,
        size: args.size,
        seed: args.seed,
        verify: args.verify.then_some(true),
        ..Spec::default()
    };
    let spec = flags.over(scenario);
    let (due, found) = (spec.targets_min.unwrap_or(1), args.targets.len());
    if found < due {
        let cause = format!("{found} given, {due} or more needed");
        let prepare = spec.prepare.as_deref();
        let remedy =
            prepare.unwrap_or("name a volume: ogee bench vol1 (ogee volume ls lists them)");
        return Err(wrong("too few targets to load", &cause, remedy));
    }
    Ok(spec)
}

/// Lists the named scenarios.
pub(super) fn scenarios(format: Format) -> Result<ExitCode, CliError> {
    let named = Spec::named().map_err(|error| bad_scenario(&error))?;
    let about = |spec: &Spec| spec.about.clone().unwrap_or_default();
    let prepare = |spec: &Spec| spec.prepare.clone().unwrap_or_default();
    let json: Vec<_> = named
        .iter()
        .map(|(name, spec)| json!({"name": name, "about": about(spec), "prepare": prepare(spec)}))
        .collect();
    let rows = named
        .iter()
        .map(|(name, spec)| vec![(*name).to_owned(), about(spec)])
        .collect();
    print(format, &json!(json), &["scenario", "what it is"], rows);
    Ok(ExitCode::SUCCESS)
}

fn bad_scenario(error: &ScenarioError) -> CliError {
    let remedy = "ogee bench scenarios lists the named ones; a file has the same keys as they";
    let fault = wrong("cannot use the scenario", &chain(error), remedy);
    match error {
        ScenarioError::Unknown { .. } => fault.with_exit(Exit::NotFound),
        _ => fault,
    }
}

fn write_files(args: &LoadArgs, report: &Report) -> Result<(), CliError> {
    if let Some(path) = &args.json {
        write(path, &format!("{:#}\n", report.to_json()))?;
    }
    if let Some(path) = &args.csv {
        write(path, &report.to_csv())?;
    }
    if let Some(path) = &args.html {
        write(path, &report.to_html())?;
    }
    Ok(())
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), CliError> {
    std::fs::write(path, text).map_err(|error| {
        let doing = format!("cannot write {}", path.display());
        CliError::io(&doing, &error, "check the path, free space and permissions")
    })
}
