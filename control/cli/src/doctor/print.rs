//! Findings on stdout.
//!
//! *Place*: the end of `ogee doctor`. *Owner*: none. *Invariants*: JSON fields are a contract; the script is
//! printed and never run. *On failure*: none.

use super::check::{Finding, Verdict, worst};
use crate::args::Format;
use crate::output::line;
use serde_json::{Value, json};

/// As a table, or JSON.
pub(crate) fn findings(findings: &[Finding], format: Format) {
    match format {
        Format::Json => line(&format!("{:#}", to_json(findings))),
        Format::Table => findings.iter().for_each(|finding| line(&to_text(finding))),
    }
}

/// What would put right what is not fine, as a script.
pub(crate) fn script(findings: &[Finding]) {
    line(&to_script(findings));
}

fn to_json(findings: &[Finding]) -> Value {
    let checks = findings.iter().map(|finding| {
        json!({
            "name": finding.name.text(), "subject": finding.subject,
            "verdict": finding.verdict.text(), "found": finding.found, "needed": finding.needed,
            "fix": finding.fix.as_ref().map(|fix| &fix.text),
            "commands": finding.fix.as_ref().map_or(&[][..], |fix| &fix.commands),
        })
    });
    json!({
        "verdict": worst(findings).text(),
        "rdma": cfg!(feature = "rdma"),
        "checks": checks.collect::<Vec<_>>(),
    })
}

fn to_text(finding: &Finding) -> String {
    let name = finding.name.text();
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!(" ({subject})"),
    };
    let mut text = format!(
        "{:<8} {name}{subject}: {}",
        finding.verdict.text(),
        finding.found
    );
    if let Some(fix) = &finding.fix {
        text.push_str(&format!("\n           needed: {}", finding.needed));
        text.push_str(&format!("\n           try:    {}", fix.text));
    }
    text
}

fn to_script(findings: &[Finding]) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# What ogee doctor would do on this host. Read it, then run it as root.\nset -eu",
    );
    for finding in findings {
        let Some(fix) = &finding.fix else { continue };
        let name = finding.name.text();
        text.push_str(&format!(
            "\n\n# {name} {}: {}",
            finding.subject,
            comment(&finding.found)
        ));
        text.push_str(&format!("\n# {}", comment(&fix.text)));
        for command in &fix.commands {
            // What has a place to be filled in cannot run as it is.
            let blank = command.contains("INTERFACE") || command.contains("ADDRESS/PREFIX");
            text.push_str(if blank { "\n# " } else { "\n" });
            text.push_str(command);
        }
    }
    if worst(findings) == Verdict::Ok {
        text.push_str("\n# Nothing is to be done.");
    }
    text
}

/// On one line, so that nothing of it is a command.
fn comment(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::{Finding, Verdict, to_json, to_script, to_text};
    use crate::doctor::check::{CheckName, Fix};

    fn examples() -> Vec<Finding> {
        let fix = Fix::new("raise\nit").by(&[
            "ulimit -l unlimited",
            "ip address add ADDRESS/PREFIX dev eth0",
        ]);
        vec![
            Finding::ok(CheckName::Kernel, "6.1", "5.11 or later"),
            Finding::ok(CheckName::Memlock, "64 KiB", "8 MiB").but(Verdict::Failed, fix),
        ]
    }

    #[test]
    fn each_finding_has_found_needed_and_fix() {
        let shown = to_json(&examples());
        assert_eq!(shown["verdict"], "failed");
        let check = &shown["checks"][1];
        assert_eq!(
            (&check["name"], &check["found"]),
            (&"memlock".into(), &"64 KiB".into())
        );
        assert_eq!(
            (&check["needed"], &check["fix"]),
            (&"8 MiB".into(), &"raise\nit".into())
        );
        assert!(shown["checks"][0]["fix"].is_null());
        let text = to_text(&examples()[1]);
        assert!(
            text.starts_with("failed   memlock: 64 KiB") && text.contains("needed: 8 MiB"),
            "{text}"
        );
    }

    #[test]
    fn the_script_has_commands_and_comments_and_nothing_else() {
        let script = to_script(&examples());
        let commands: Vec<&str> = script
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .collect();
        assert_eq!(commands, ["set -eu", "ulimit -l unlimited"]);
        assert!(to_script(&examples()[..1]).contains("Nothing is to be done"));
    }
}
