//! `ogee-history` as a script sees it: what it reads, what it prints, how it ends.

use std::io::Write;
use std::process::{Command, Output};

fn judge(files: &[&str]) -> Output {
    let files: Vec<tempfile::NamedTempFile> = files
        .iter()
        .map(|text| {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            file
        })
        .collect();
    Command::new(env!("CARGO_BIN_EXE_ogee-history"))
        .args(files.iter().map(tempfile::NamedTempFile::path))
        .output()
        .expect("it runs")
}

const WRITES: &str = r#"{"client":1,"block":3,"kind":"write","value":1,"invoked_ns":0,"completed_ns":5}
{"client":1,"block":3,"kind":"write","value":2,"invoked_ns":6,"completed_ns":null}
"#;
const READ: &str =
    r#"{"client":2,"block":3,"kind":"read","value":1,"invoked_ns":7,"completed_ns":9}"#;
const STALE: &str =
    r#"{"client":2,"block":3,"kind":"read","value":0,"invoked_ns":7,"completed_ns":9}"#;

#[test]
fn a_good_history_in_several_files() {
    let output = judge(&[WRITES, READ]);
    assert_eq!(output.status.code(), Some(0));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (
            &summary["writes"],
            &summary["writes_open"],
            &summary["reads"]
        ),
        (&1.into(), &1.into(), &1.into())
    );
}

#[test]
fn a_bad_one_is_printed() {
    let output = judge(&[WRITES, STALE]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("block 3: stale"), "{text}");
    assert!(text.contains("by client 2, 7 ns to 9 ns"), "{text}");
}

#[test]
fn what_cannot_be_read_is_neither() {
    assert_eq!(judge(&[WRITES, "{\"client\":"]).status.code(), Some(2));
    assert_eq!(judge(&[]).status.code(), Some(2));
}
