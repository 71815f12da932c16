//! `ogee bench`.

use super::ask::config;
use crate::args::{BenchArgs, Format};
use crate::error::{CliError, chain};
use crate::output::line;
use crate::settings::wrong;
use ogee_client::{MdsHandle, OpenOptions, Volume};
use ogee_perf::{Progress, Report, Rw, Stop, Workload};
use ogee_proto::unit::ByteLen;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) fn run(mds: &[String], args: &BenchArgs, format: Format) -> Result<ExitCode, CliError> {
    let workload = workload(args)?;
    let report = ogee_runtime::executor::block_on(load(mds, &args.name, &workload))?;
    match format {
        Format::Json => line(&format!("{:#}", report.to_json())),
        Format::Table => line(&format!("{report}")),
    }
    Ok(ExitCode::SUCCESS)
}

fn workload(args: &BenchArgs) -> Result<Workload, CliError> {
    let text = if args.rw == "randrw" {
        format!("randrw:{}", args.rwmixread)
    } else {
        args.rw.clone()
    };
    let rw: Rw = text.parse().map_err(|error: ogee_perf::RwParseError| {
        wrong(
            "cannot run the load",
            &error.to_string(),
            "give --rw as fio names it",
        )
    })?;
    Ok(Workload {
        name: args.name.clone(),
        rw,
        block: args.bs,
        iodepth: args.iodepth as usize,
        jobs: args.numjobs as usize,
        stop: args.io_size.map_or(
            Stop::Runtime(Duration::from_secs(args.runtime)),
            Stop::Bytes,
        ),
        ramp: Duration::from_secs(args.ramp_time),
        rate: args.rate_iops,
        verify: args.verify,
        span: args.size.map(|size| ByteLen::new(size.get())),
        seed: args.seed,
        ..Workload::default()
    })
}

async fn load(mds: &[String], name: &str, workload: &Workload) -> Result<Report, CliError> {
    let volume = open(mds, name, false).await?;
    let show = std::io::stderr().is_terminal();
    let report = ogee_perf::run(&volume, workload, |progress| {
        if show {
            print_progress(progress);
        }
    })
    .await;
    let closed = volume.close().await;
    let failed = |error: &dyn std::error::Error| {
        let what = format!("the load on volume {name} failed");
        CliError::new(
            "OGEE-3401",
            &what,
            &chain(error),
            "ogee status shows what is wrong",
        )
    };
    let report = report.map_err(|error| failed(&error))?;
    closed.map_err(|error| failed(&error))?;
    Ok(report)
}

fn print_progress(progress: &Progress) {
    eprintln!(
        "{:>4} s  read {:>9} IOPS  write {:>9} IOPS",
        progress.elapsed.as_secs(),
        progress.read_iops,
        progress.write_iops
    );
}

/// Attaches a volume for a frontend or a load.
pub(super) async fn open(mds: &[String], name: &str, read_only: bool) -> Result<Volume, CliError> {
    let doing = format!("cannot attach volume {name}");
    let handle =
        MdsHandle::start(config(mds)).map_err(|error| CliError::control(&doing, &error))?;
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    let host = host.unwrap_or_else(|| String::from("unknown"));
    let options = OpenOptions {
        read_only,
        host,
        io_timeout: None,
    };
    Volume::open(handle, name, options)
        .await
        .map_err(|error| match &error {
            ogee_client::ClientError::Control(control) => CliError::control(&doing, control),
            other => CliError::new(
                "OGEE-3402",
                &doing,
                &chain(other),
                "ogee volume show names its state",
            ),
        })
}
