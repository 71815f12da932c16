//! `ogee-history FILE…`: judges histories of clients, one JSON object a line in all files together.
//!
//! *Place*: run by `scripts/chaos` on what its load wrote.
//! *Owner*: a process that reads its files once.
//! *Invariants*: ends with 0 only if everything was read and each block is a linearizable register.
//! *On failure*: ends with 1 and prints the operations that contradict each other; with 2 if it
//! could not read.

use ogee_sim::history::{Operation, Summary, check};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: ogee-history FILE...");
        return ExitCode::from(2);
    }
    let mut history = Vec::new();
    for path in &paths {
        if let Err(reason) = read(path, &mut history) {
            eprintln!("{path}: {reason}");
            return ExitCode::from(2);
        }
    }
    match check(&history) {
        Ok(summary) => {
            println!("{}", json(&summary));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: &str, history: &mut Vec<Operation>) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    for (at, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(|error| error.to_string())?;
        let operation = serde_json::from_str(&line);
        history.push(operation.map_err(|error| format!("line {}: {error}", at + 1))?);
    }
    Ok(())
}

fn json(summary: &Summary) -> serde_json::Value {
    serde_json::json!({
        "blocks": summary.blocks,
        "reads": summary.reads,
        "reads_open": summary.reads_open,
        "writes": summary.writes,
        "writes_open": summary.writes_open,
        "writes_open_seen": summary.writes_open_seen,
    })
}
