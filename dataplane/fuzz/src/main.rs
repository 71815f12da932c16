//! `ogee-fuzz-replay`: every kept input of every target, once, without libFuzzer.
//!
//! A panic ends it; the input that did it is the last one named on the standard error.

use std::process::ExitCode;

#[cfg(not(ogee_sim))]
fn main() -> ExitCode {
    eprintln!(
        "this build has no deterministic engine: use scripts/sim, which builds with --cfg ogee_sim"
    );
    ExitCode::from(2)
}

#[cfg(ogee_sim)]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(corpus), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: ogee-fuzz-replay CORPUS");
        return ExitCode::from(2);
    };
    for (target, run) in TARGETS {
        match ogee_fuzz::kept::replay(&std::path::Path::new(&corpus).join(target), *run) {
            Ok(0) => {
                eprintln!("{corpus}/{target} holds no input");
                return ExitCode::FAILURE;
            }
            Ok(count) => println!("{target}: {count} kept inputs"),
            Err(error) => {
                eprintln!("{corpus}/{target}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[cfg(ogee_sim)]
type Run = fn(&[u8]);

#[cfg(ogee_sim)]
const TARGETS: &[(&str, Run)] = &[
    ("frames", ogee_fuzz::frames::run),
    ("group_messages", ogee_fuzz::group_messages::run),
    ("log_recovery", ogee_fuzz::log_recovery::run),
    ("store_open", ogee_fuzz::store_open::run),
    ("store_pages", ogee_fuzz::store_pages::run),
    ("rdma_heads", ogee_fuzz::rdma_heads::run),
    ("nbd", ogee_fuzz::nbd::run),
    ("virtqueue", ogee_fuzz::virtqueue::run),
    #[cfg(feature = "control")]
    ("mds_records", ogee_fuzz::mds_records::run),
    #[cfg(feature = "control")]
    ("mds_commands", ogee_fuzz::mds_commands::run),
];
