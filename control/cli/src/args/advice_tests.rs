//! Commands that errors, health codes and pages tell an operator to type exist.

use super::Cli;
use clap::{Command, CommandFactory};
use std::fs;
use std::path::{Path, PathBuf};

/// Where advice stands.
const PLACES: &[&str] = &["control", "dataplane", "ffi", "perf", "docs", "README.md"];

fn texts(at: &Path, found: &mut Vec<PathBuf>) {
    if at.is_file() {
        let kind = at.extension().and_then(|it| it.to_str());
        if matches!(kind, Some("rs" | "md")) {
            found.push(at.to_path_buf());
        }
        return;
    }
    let name = at
        .file_name()
        .and_then(|it| it.to_str())
        .unwrap_or_default();
    if matches!(name, "target" | "corpus" | "decisions") {
        return;
    }
    for entry in fs::read_dir(at).expect("a directory of the repository") {
        texts(&entry.expect("an entry").path(), found);
    }
}

/// The word at the beginning of `text`, if it is one that a command could be.
fn word(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '-');
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    let is_whole = !rest.starts_with(|c: char| c.is_alphanumeric() || "_/.|{".contains(c));
    (is_whole && word.starts_with(|c: char| c.is_ascii_lowercase())).then_some(word)
}

/// `ogee NOUN VERB` in `text` where that noun needs a verb and has none of that name.
fn unknown<'a>(cli: &Command, text: &'a str) -> Vec<(&'a str, &'a str)> {
    let behind = text
        .match_indices("ogee ")
        .map(|(at, it)| &text[at + it.len()..]);
    let pairs = behind.filter_map(|rest| {
        let noun = word(rest)?;
        let verb = word(rest[noun.len()..].strip_prefix(' ')?)?;
        let noun_of = cli.find_subcommand(noun)?;
        let is_known = noun_of.find_subcommand(verb).is_some() || verb == "help";
        (noun_of.is_subcommand_required_set() && !is_known).then_some((noun, verb))
    });
    pairs.collect()
}

#[test]
fn what_is_advised_can_be_typed() {
    let cli = Cli::command();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for place in PLACES {
        texts(&root.join(place), &mut files);
    }
    assert!(
        files.len() > 300,
        "only {} files: is this the repository?",
        files.len()
    );
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a text");
        for (noun, verb) in unknown(&cli, &text) {
            wrong.push(format!("{}: ogee {noun} {verb}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "no such commands:\n{}", wrong.join("\n"));
}

#[test]
fn a_verb_that_is_none_is_found() {
    let cli = Cli::command();
    let of = |text| unknown(&cli, text);
    // In two parts, since this file is read as well.
    let wrong = ["try ogee volume", "list, or ogee pool ls"].join(" ");
    assert_eq!(of(&wrong), [("volume", "list")]);
    assert_eq!(of("`ogee volume ls` and ogee status says"), []);
    assert_eq!(
        of("ogee volume {name}; ogee volume VOLUME; ogee nouns verb"),
        []
    );
}
