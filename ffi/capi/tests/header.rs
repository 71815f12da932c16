//! The committed header is what cbindgen makes of the sources today.
//! `OGEE_WRITE_HEADER=1 cargo test -p ogee-capi --test header` writes it.

use cbindgen::{Builder, Config};
use std::fs;
use std::path::Path;

/// In the header's order.
const SOURCES: &[&str] = &[
    "abi",
    "calls/library",
    "calls/client",
    "calls/volume",
    "calls/io",
    "calls/queue",
    "calls/memory",
    "calls/submit",
];

fn made(root: &Path) -> String {
    let config = Config::from_file(root.join("cbindgen.toml")).expect("a configuration");
    let builder = Builder::new().with_config(config);
    let builder = SOURCES.iter().fold(builder, |builder, source| {
        builder.with_src(root.join("src").join(format!("{source}.rs")))
    });
    let mut header = Vec::new();
    builder.generate().expect("C").write(&mut header);
    String::from_utf8(header).expect("text")
}

#[test]
fn the_header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (path, made) = (root.join("include/ogee.h"), made(root));
    if std::env::var_os("OGEE_WRITE_HEADER").is_some() {
        fs::write(&path, &made).expect("written");
    }
    let committed = fs::read_to_string(&path).expect("a header");
    assert!(
        committed == made,
        "include/ogee.h is old: OGEE_WRITE_HEADER=1 cargo test -p ogee-capi --test header"
    );
}

/// Every call that the sources export stands in the header, so none of their files is forgotten above.
#[test]
fn every_call_is_declared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = fs::read_to_string(root.join("include/ogee.h")).expect("a header");
    let mut calls = 0;
    for entry in fs::read_dir(root.join("src/calls")).expect("a folder") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a source file");
        for line in text
            .lines()
            .filter(|line| line.contains("extern \"C\" fn ogee_"))
        {
            let name = line
                .split("fn ")
                .nth(1)
                .and_then(|rest| rest.split('(').next());
            let name = name.expect("a name");
            assert!(
                header.contains(&format!(" {name}(")) || header.contains(&format!("*{name}(")),
                "{name}"
            );
            calls += 1;
        }
    }
    assert!(calls >= 25, "only {calls} calls were found");
}
