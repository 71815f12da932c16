//! `ogee-sim`: one simulation, given by its seed.
//!
//! Exit codes: 0 all was well, 1 a violation, 2 usage, 3 a fault that should have happened did not.

use std::process::ExitCode;

/// A tenth of a seed's time went into the C library's.
#[cfg(ogee_sim)]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(ogee_sim))]
fn main() -> ExitCode {
    eprintln!("this build has no simulator: use scripts/sim, which builds with --cfg ogee_sim");
    ExitCode::from(2)
}

#[cfg(ogee_sim)]
fn main() -> ExitCode {
    use ogee_runtime::seeded;
    use ogee_sim::simulator::{self, Verdict};

    let Some((seed, mode, fills)) = parse(std::env::args().skip(1)) else {
        eprintln!("usage: ogee-sim --seed SEED [--fill] [--trace | --plan]");
        return ExitCode::from(2);
    };
    let bug = match seeded::chosen() {
        Ok(bug) => bug,
        Err(unknown) => {
            eprintln!("{unknown}");
            return ExitCode::from(2);
        }
    };
    match mode {
        Mode::Run => {}
        Mode::Trace => trace(),
        Mode::Plan => {
            println!("{}", simulator::plan_of(seed, fills));
            return ExitCode::SUCCESS;
        }
    }
    let report = match std::panic::catch_unwind(|| simulator::run(seed, fills)) {
        Ok(report) => report,
        Err(_) => {
            // The panic has said what and where.
            println!("seed {seed} VIOLATION: a panic, see above");
            return ExitCode::FAILURE;
        }
    };
    println!("{report}");
    if let Some(bug) = bug {
        println!("{bug}: the code came by it {} times", seeded::times_asked());
    }
    match report.verdict {
        Verdict::Good => ExitCode::SUCCESS,
        Verdict::Violation(_) => ExitCode::FAILURE,
        Verdict::Incomplete(_) => ExitCode::from(3),
    }
}

#[cfg(ogee_sim)]
#[derive(Clone, Copy)]
enum Mode {
    Run,
    /// With all that happens on the standard error.
    Trace,
    /// Only says what the seed is about.
    Plan,
}

#[cfg(ogee_sim)]
fn parse(mut arguments: impl Iterator<Item = String>) -> Option<(u64, Mode, bool)> {
    let (mut seed, mut mode, mut fills) = (None, Mode::Run, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => seed = Some(arguments.next()?.parse().ok()?),
            "--trace" => mode = Mode::Trace,
            "--fill" => fills = true,
            "--plan" => mode = Mode::Plan,
            _ => return None,
        }
    }
    Some((seed?, mode, fills))
}

/// Logs to the standard error in virtual time. `OGEE_LOG` filters, as for the daemons.
#[cfg(ogee_sim)]
fn trace() {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::format::Writer;
    use tracing_subscriber::fmt::time::FormatTime;

    struct Virtual;

    impl FormatTime for Virtual {
        fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
            let (time, host) = (ogee_runtime::sim::world_time(), ogee_runtime::sim::host());
            write!(w, "{:12.6} h{:<4}", time.as_secs_f64(), host.get())
        }
    }

    let filter = EnvFilter::try_from_env("OGEE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_timer(Virtual)
        .with_ansi(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
