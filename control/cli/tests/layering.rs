//! Imports go downwards only: packages by their manifests, special crates by the sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Packages from the lowest up; a package may use only those before it, and its equals not at all.
const LAYERS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("dataplane/runtime", &[]),
    ("ffi/rdma", &[]),
    ("ffi/spdk", &[]),
    (
        "dataplane/device",
        &["ogee-proto", "ogee-runtime", "ogee-spdk"],
    ),
    (
        "dataplane/transport",
        &["ogee-proto", "ogee-runtime", "ogee-rdma"],
    ),
    (
        "dataplane/store",
        &["ogee-proto", "ogee-runtime", "ogee-device"],
    ),
    (
        "dataplane/log",
        &["ogee-proto", "ogee-runtime", "ogee-device"],
    ),
    (
        "dataplane/group",
        &[
            "ogee-proto",
            "ogee-runtime",
            "ogee-device",
            "ogee-transport",
            "ogee-store",
            "ogee-log",
        ],
    ),
    (
        "dataplane/shard",
        &[
            "ogee-proto",
            "ogee-runtime",
            "ogee-device",
            "ogee-transport",
            "ogee-store",
            "ogee-log",
            "ogee-group",
        ],
    ),
    (
        "dataplane/client",
        &["ogee-proto", "ogee-runtime", "ogee-transport"],
    ),
    (
        "dataplane/frontend",
        &["ogee-proto", "ogee-runtime", "ogee-client"],
    ),
    (
        "dataplane/sim",
        &[
            "ogee-proto",
            "ogee-runtime",
            "ogee-device",
            "ogee-transport",
            "ogee-store",
            "ogee-log",
            "ogee-group",
            "ogee-shard",
            "ogee-client",
            "ogee-frontend",
        ],
    ),
    // Above the client, and imported by nothing: its callers speak C.
    (
        "ffi/capi",
        &[
            "ogee-proto",
            "ogee-runtime",
            "ogee-transport",
            "ogee-client",
        ],
    ),
    ("control", &["ogee-proto"]),
    (
        "perf",
        &["ogee-proto", "ogee-runtime", "ogee-device", "ogee-client"],
    ),
    // Without `group`: that there is no consensus in it is what it is for.
    (
        "perf/floor",
        &[
            "ogee-proto",
            "ogee-runtime",
            "ogee-device",
            "ogee-transport",
            "ogee-store",
            "ogee-log",
        ],
    ),
];

/// Crates that only some packages may name in their sources.
const KEEPERS: &[(&str, &[&str])] = &[
    ("glommio", &["dataplane/runtime"]),
    ("openraft", &["dataplane/group", "control"]),
    ("redb", &["control"]),
    ("rdma_sys", &["ffi/rdma"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Our packages in the `[dependencies]` of a manifest.
fn dependencies(package: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(package).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = text.parse().expect("TOML");
    let table = manifest["dependencies"].as_table().expect("a table");
    table
        .keys()
        .filter(|name| name.starts_with("ogee-"))
        .cloned()
        .collect()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn packages_import_downwards_only() {
    for (package, allowed) in LAYERS {
        for dependency in dependencies(package) {
            let fine = allowed.contains(&dependency.as_str());
            assert!(fine, "{package} may not depend on {dependency}");
        }
    }
}

#[test]
fn nothing_imports_the_binary() {
    for (package, _) in LAYERS {
        assert!(
            !dependencies(package).contains(&"ogee-cli".to_owned()),
            "{package}"
        );
    }
}

#[test]
fn special_crates_stay_where_they_are_kept() {
    for (package, _) in LAYERS {
        let mut files = Vec::new();
        sources(&root().join(package).join("src"), &mut files);
        assert!(!files.is_empty(), "{package} has sources");
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            for (keeper, owners) in KEEPERS {
                let names_it = text.lines().any(|line| {
                    let code = line.trim_start();
                    !code.starts_with("//") && code.contains(&format!("{keeper}::"))
                });
                let fine = owners.contains(package) || !names_it;
                assert!(fine, "{} names {keeper}", file.display());
            }
        }
    }
}
