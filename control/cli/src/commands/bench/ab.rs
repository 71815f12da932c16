//! `ogee bench ab`: two things in turn, each turn a process of its own.

use super::compare::{check_noise, show, verdict};
use super::load::write;
use crate::args::{AbArgs, Format};
use crate::error::CliError;
use crate::settings::wrong;
use ogee_perf::{Comparison, Report, human_count, human_ns};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// One of the two.
struct Contender<'a> {
    name: &'static str,
    binary: PathBuf,
    target: &'a str,
    mds: String,
    setup: Option<&'a str>,
    flags: &'a [String],
}

pub(super) fn run(mds: &[String], args: &AbArgs, format: Format) -> Result<ExitCode, CliError> {
    check_noise(args.noise)?;
    let both = contenders(mds, args)?;
    if let Some(dir) = &args.keep {
        std::fs::create_dir_all(dir).map_err(|error| {
            let doing = format!("cannot make {}", dir.display());
            CliError::io(&doing, &error, "choose a directory that you may write to")
        })?;
    }
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let mut turns = [None, None];
        for which in order(round) {
            let report = both[which].turn(&args.flags)?;
            tell(round, args.rounds, &both[which], &report);
            if let Some(dir) = &args.keep {
                let file = format!("{}-{round:02}.json", both[which].name.to_lowercase());
                write(&dir.join(file), &format!("{:#}\n", report.to_json()))?;
            }
            turns[which] = Some(report);
        }
        let [Some(a), Some(b)] = turns else {
            unreachable!("a round has a turn of each");
        };
        rounds.push((a, b));
    }
    let comparison = Comparison::of_rounds(&rounds, args.noise);
    if comparison.rows.is_empty() {
        let cause = "not one figure was there in every turn of both";
        return Err(wrong(
            "there is nothing to compare",
            cause,
            "run longer: -- --runtime 10",
        ));
    }
    show(&comparison, format);
    Ok(verdict(&comparison, args.check))
}

/// A first, then B first: what drifts helps and harms both.
const fn order(round: u32) -> [usize; 2] {
    if round % 2 == 1 { [0, 1] } else { [1, 0] }
}

fn contenders<'a>(mds: &[String], args: &'a AbArgs) -> Result<[Contender<'a>; 2], CliError> {
    let own = std::env::current_exe().map_err(|error| {
        CliError::io(
            "cannot find this binary",
            &error,
            "give --a-binary and --b-binary",
        )
    })?;
    let servers = |mine: &Option<String>| mine.clone().unwrap_or_else(|| mds.join(","));
    let binary = |mine: &Option<PathBuf>| mine.clone().unwrap_or_else(|| own.clone());
    let both = [
        Contender {
            name: "A",
            binary: binary(&args.a_binary),
            target: &args.a_target,
            mds: servers(&args.a_mds),
            setup: args.a_setup.as_deref(),
            flags: &args.a_flag,
        },
        Contender {
            name: "B",
            binary: binary(&args.b_binary),
            target: args.b_target.as_deref().unwrap_or(&args.a_target),
            mds: servers(&args.b_mds),
            setup: args.b_setup.as_deref(),
            flags: &args.b_flag,
        },
    ];
    let [a, b] = &both;
    let is_same = a.binary == b.binary && a.target == b.target && a.mds == b.mds;
    if is_same && a.setup == b.setup && a.flags == b.flags {
        let cause = format!("both are {} on {}", a.binary.display(), a.target);
        let remedy = "give one of --b-target, --b-binary, --b-mds, --b-setup, --b-flag";
        return Err(wrong("A and B are the same", &cause, remedy));
    }
    Ok(both)
}

impl Contender<'_> {
    fn turn(&self, flags: &[String]) -> Result<Report, CliError> {
        if let Some(setup) = self.setup {
            let status = Command::new("sh")
                .arg("-c")
                .arg(setup)
                .stdout(Stdio::null())
                .status();
            let what = format!("the setup of {} failed: {setup}", self.name);
            match status {
                Ok(status) if status.success() => {}
                Ok(status) => return Err(self.failed(&what, &status.to_string())),
                Err(error) => return Err(self.failed(&what, &error.to_string())),
            }
        }
        let mut command = Command::new(&self.binary);
        command
            .arg("bench")
            .arg(self.target)
            .args(flags)
            .args(self.flags);
        command.args(["-o", "json"]).stdin(Stdio::null());
        if !self.mds.is_empty() {
            command.env("OGEE_MDS", &self.mds);
        }
        let what = format!("a turn of {} failed: {command:?}", self.name);
        let output = command
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| self.failed(&what, &error.to_string()))?;
        if !output.status.success() {
            return Err(self.failed(&what, &output.status.to_string()));
        }
        Report::from_json(&String::from_utf8_lossy(&output.stdout))
            .map_err(|error| self.failed(&what, &error.to_string()))
    }

    fn failed(&self, what: &str, cause: &str) -> CliError {
        let remedy = format!(
            "run it by hand; its binary is {}, and its error stands above",
            self.binary.display()
        );
        CliError::new("OGEE-3405", what, cause, &remedy)
    }
}

fn tell(round: u32, rounds: u32, contender: &Contender<'_>, report: &Report) {
    for (kind, side) in report.sides() {
        let at = |percent| {
            let ns = side.latency().percentile.at(percent).unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            human_ns(ns as f64)
        };
        eprintln!(
            "round {round}/{rounds} {} {kind}: {} IOPS, p50 {}, p99 {}",
            contender.name,
            human_count(side.iops),
            at(50.0),
            at(99.0)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: AbArgs,
    }

    fn parsed(line: &[&str]) -> AbArgs {
        Line::parse_from(std::iter::once(&"ab").chain(line)).args
    }

    /// A binary that counts its turns and answers with these IOPS.
    fn fake(dir: &std::path::Path, name: &str, iops: u32) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(name);
        let script = format!(
            "#!/bin/sh\necho {name} \"$@\" >>{}\n\
             echo '{{\"jobs\":[{{\"write\":{{\"iops\":{iops},\"total_ios\":9}}}}]}}'\n",
            dir.join("turns").display()
        );
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn turns_alternate_with_the_same_flags_and_the_worse_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (fake(dir.path(), "a", 1000), fake(dir.path(), "b", 800));
        let keep = dir.path().join("kept").display().to_string();
        let line = [
            "--a-target",
            "v1",
            "--a-binary",
            &a,
            "--b-binary",
            &b,
            "--rounds",
            "3",
            "--check",
            "--b-flag=--sync=dsync",
            "--keep",
            &keep,
            "--",
            "--rw",
            "randwrite",
        ];
        let code = run(&[], &parsed(&line), Format::Table).unwrap();
        assert_eq!(code, ExitCode::from(1));
        let turns = std::fs::read_to_string(dir.path().join("turns")).unwrap();
        let (names, flags): (Vec<&str>, Vec<&str>) = turns
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .unzip();
        assert_eq!(names, ["a", "b", "b", "a", "a", "b"]);
        let of_each = names.iter().zip(&flags);
        assert!(of_each.into_iter().all(|(name, flags)| *flags
            == match *name {
                "a" => "bench v1 --rw randwrite -o json",
                _ => "bench v1 --rw randwrite --sync=dsync -o json",
            }));
        assert_eq!(std::fs::read_dir(keep).unwrap().count(), 6);
    }

    #[test]
    fn what_fails_is_named_with_its_command() {
        let dir = tempfile::tempdir().unwrap();
        let a = fake(dir.path(), "a", 1000);
        let same = run(&[], &parsed(&["--a-target", "v1"]), Format::Table).unwrap_err();
        assert!(same.to_string().contains("--b-target"), "{same}");
        let line = [
            "--a-target",
            "v1",
            "--a-binary",
            &a,
            "--b-binary",
            "/bin/false",
        ];
        let error = run(&[], &parsed(&line), Format::Table)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/bin/false") && error.contains("turn of B"),
            "{error}"
        );
        let line = ["--a-target", "v1", "--a-binary", &a, "--b-setup", "exit 7"];
        let error = run(&[], &parsed(&line), Format::Table)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit 7") && error.contains("setup of B"),
            "{error}"
        );
    }
}
