//! The list of seeded bugs, the hooks in the sources and the document name the same bugs.

use ogee_runtime::seeded::BUGS;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What stands between `open` and the next `close`, each time.
fn quoted(text: &str, open: &str, close: char) -> BTreeSet<String> {
    let parts = text.split(open).skip(1);
    let names = parts.filter_map(|part| part.split_once(close));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Hooks of production code; the runtime's own sources only explain them.
fn hooked() -> BTreeSet<String> {
    let mut files = Vec::new();
    for layer in ["client", "group", "log", "shard", "store", "transport"] {
        let folder = repository().join("dataplane").join(layer).join("src");
        sources(&folder, &mut files);
    }
    let texts = files.iter().map(fs::read_to_string);
    let names = texts.map(|text| quoted(&text.expect("a source"), "seeded_bug!(\"", '"'));
    names
        .reduce(|all, more| all.union(&more).cloned().collect())
        .expect("sources")
}

#[test]
fn every_bug_has_a_hook() {
    let listed: BTreeSet<String> = BUGS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(hooked(), listed);
}

#[test]
fn every_bug_is_documented() {
    let text = fs::read_to_string(repository().join("docs/reliability.md")).expect("the document");
    let rows: String = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let rows = rows.replace("| `", "\n| `");
    let named: BTreeSet<String> = quoted(&rows, "\n| `", '`');
    for bug in BUGS {
        assert!(named.contains(bug), "{bug} is not in docs/reliability.md");
    }
}
