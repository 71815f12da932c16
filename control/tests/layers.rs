//! Modules import downwards only.

use std::path::{Path, PathBuf};

/// Lowest first.
const LAYERS: [&str; 15] = [
    "limit",
    "state",
    "placement",
    "raft",
    "fuzzing",
    "backup",
    "liveness",
    "scheduler",
    "scale",
    "health",
    "metrics",
    "error",
    "config",
    "api",
    "mds",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("source directory") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn rank(module: &str) -> usize {
    let at = LAYERS.iter().position(|layer| *layer == module);
    at.unwrap_or_else(|| panic!("module {module:?} has no place in the list"))
}

#[test]
fn no_module_imports_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut imports = 0;
    for file in files.iter().filter(|f| !f.ends_with("lib.rs")) {
        let relative = file.strip_prefix(&root).expect("below the root");
        let own = relative.components().next().expect("a name").as_os_str();
        let own = own.to_str().expect("plain").trim_end_matches(".rs");
        let text = std::fs::read_to_string(file).expect("source");
        for import in text.split("crate::").skip(1) {
            let end = import
                .find(|c: char| !c.is_ascii_lowercase())
                .unwrap_or(import.len());
            let target = &import[..end];
            assert!(
                rank(target) <= rank(own),
                "{} imports {target}",
                relative.display()
            );
            imports += 1;
        }
    }
    assert!(imports > 20, "the scan sees imports");
}
