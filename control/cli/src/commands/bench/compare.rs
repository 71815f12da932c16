//! `ogee bench compare` and `ogee bench report`: what is made of reports.

use super::load::write;
use crate::args::{CompareArgs, Format, ReportArgs};
use crate::error::{CliError, Exit, chain};
use crate::output::line;
use crate::settings::wrong;
use ogee_perf::{Comparison, Report};
use std::path::Path;
use std::process::ExitCode;

pub(super) fn compare(args: &CompareArgs, format: Format) -> Result<ExitCode, CliError> {
    check_noise(args.noise)?;
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let comparison = Comparison::of_runs(&a, &b, args.noise);
    if comparison.rows.is_empty() {
        let cause = "one has only reads and the other only writes, or one of them has nothing";
        let remedy = "run the same load twice: the same --rw, --bs and --iodepth";
        return Err(wrong("there is nothing to compare", cause, remedy));
    }
    show(&comparison, format);
    Ok(verdict(&comparison, args.check))
}

pub(super) fn report(args: &ReportArgs) -> Result<ExitCode, CliError> {
    let report = read(&args.file)?;
    if let Some(path) = &args.html {
        write(path, &report.to_html())?;
    }
    if let Some(path) = &args.csv {
        write(path, &report.to_csv())?;
    }
    if args.html.is_none() && args.csv.is_none() {
        line(&format!("{report}"));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(comparison: &Comparison, format: Format) {
    match format {
        Format::Json => {
            let json = serde_json::to_value(comparison)
                .expect("invariant: numbers and string keys are always JSON");
            line(&format!("{json:#}"));
        }
        Format::Table => line(comparison.to_string().trim_end()),
    }
}

pub(super) fn verdict(comparison: &Comparison, check: bool) -> ExitCode {
    if check && comparison.is_worse() {
        ExitCode::from(Exit::Failed as u8)
    } else {
        ExitCode::SUCCESS
    }
}

pub(super) fn check_noise(percent: f64) -> Result<(), CliError> {
    if (0.0..1000.0).contains(&percent) {
        return Ok(());
    }
    let cause = format!("--noise {percent} is no percentage");
    Err(wrong(
        "cannot compare",
        &cause,
        "give one from 0 on, such as 5",
    ))
}

pub(super) fn read(path: &Path) -> Result<Report, CliError> {
    let doing = format!("cannot read the report {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| {
        let remedy = "ogee bench … --json FILE writes one";
        CliError::io(&doing, &error, remedy).with_exit(Exit::NotFound)
    })?;
    let remedy = "ogee bench … --json FILE writes one; of fio take --output-format=json";
    Report::from_json(&text).map_err(|error| wrong(&doing, &chain(&error), remedy))
}
