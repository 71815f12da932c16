//! `ogee bench curves`: many runs, while one thing was varied.

use super::compare::read;
use super::load::write;
use crate::args::CurvesArgs;
use crate::error::{CliError, Exit};
use crate::output::line;
use crate::settings::wrong;
use ogee_perf::{Curve, Report, curves_html};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub(super) fn run(args: &CurvesArgs) -> Result<ExitCode, CliError> {
    let mut curves = Vec::new();
    for dir in entries(&args.dir)?.iter().filter(|path| path.is_dir()) {
        let mut runs: Vec<(u32, Report)> = Vec::new();
        for file in entries(dir)? {
            if let Some(value) = value_of(&file) {
                runs.push((value, read(&file)?));
            }
        }
        let axis = dir.file_name().unwrap_or_default().to_string_lossy();
        curves.push(Curve::new(&axis, &runs));
    }
    curves.retain(|curve| !curve.is_empty());
    if curves.is_empty() {
        let what = format!("there is no run in {}", args.dir.display());
        let cause = "runs are sought as WHAT/VALUE.json or WHAT/VALUE-ROUND.json";
        return Err(wrong(&what, cause, "perf/scale.sh makes them").with_exit(Exit::NotFound));
    }
    if let Some(path) = &args.html {
        write(path, &curves_html(&curves))?;
    }
    for curve in &curves {
        line(&curve.to_string());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is in a directory, by name.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let failed = |error: std::io::Error| {
        let doing = format!("cannot list {}", dir.display());
        CliError::io(&doing, &error, "give the OUT of perf/scale.sh").with_exit(Exit::NotFound)
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The value that a run was made at, by the name of its file.
fn value_of(file: &Path) -> Option<u32> {
    let name = file.file_name()?.to_str()?.strip_suffix(".json")?;
    let value = name.split_once('-').map_or(name, |(value, _)| value);
    value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_their_names() {
        let at = |name: &str| value_of(Path::new(name));
        assert_eq!(at("a/groups/256.json"), Some(256));
        assert_eq!(at("16-2.json"), Some(16));
        assert_eq!(at("x.json"), None);
        assert_eq!(at("16.json.err"), None);
    }

    #[test]
    fn a_directory_of_runs_is_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let page = dir.path().join("page.html");
        let args = CurvesArgs {
            dir: dir.path().into(),
            html: Some(page.clone()),
        };
        let error = run(&args).unwrap_err().to_string();
        assert!(error.contains("perf/scale.sh"), "{error}");
        let depth = dir.path().join("depth");
        std::fs::create_dir(&depth).unwrap();
        let run_of = |iops: u32| {
            format!(
                r#"{{"jobs":[{{"write":{{"iops":{iops},"total_ios":9,"lat_ns":{{"percentile":
                {{"50.000000":1000,"99.000000":2000}}}}}}}}]}}"#
            )
        };
        for (name, iops) in [("1-1.json", 100), ("1-2.json", 300), ("32.json", 900)] {
            std::fs::write(depth.join(name), run_of(iops)).unwrap();
        }
        assert_eq!(run(&args).unwrap(), ExitCode::SUCCESS);
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains("Throughput with depth") && page.contains("<td>200</td>"));
    }
}
