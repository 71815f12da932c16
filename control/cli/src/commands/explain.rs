//! `ogee explain`: health codes, from the table that the metadata server's health module has.

use crate::args::Format;
use crate::error::{CliError, Exit};
use crate::output::{line, print};
use ogee_control::{EXPLANATIONS, Explanation};
use serde_json::{Value, json};
use std::process::ExitCode;

pub(crate) fn run(code: Option<&str>, format: Format) -> Result<ExitCode, CliError> {
    let Some(code) = code else {
        all(format);
        return Ok(ExitCode::SUCCESS);
    };
    let found = EXPLANATIONS.iter().find(|it| is_meant(it.code, code));
    let Some(found) = found else {
        let what = format!("{code} is no health code");
        let cause = match code.to_uppercase() {
            upper if upper.starts_with("OGEE-") => {
                "errors, OGEE-2xxx and OGEE-3xxx, say their cause and what to try themselves"
            }
            _ => "a code is written OGEE-1003, or 1003",
        };
        let error = CliError::new("OGEE-3602", &what, cause, "ogee explain lists all");
        return Err(error.with_exit(Exit::NotFound));
    };
    match format {
        Format::Json => line(&format!("{:#}", to_json(found))),
        Format::Table => {
            line(&format!(
                "{} {}: {}",
                found.code, found.severity, found.title
            ));
            line(&format!("\nmeans:  {}", found.meaning));
            line(&format!("\nitself: {}", found.by_itself));
            line(&format!("\ntry:    {}", found.to_do));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// With or without the prefix, in any case.
fn is_meant(code: &str, asked: &str) -> bool {
    let bare = code.strip_prefix("OGEE-").unwrap_or(code);
    code.eq_ignore_ascii_case(asked) || bare == asked
}

fn all(format: Format) {
    let json: Vec<Value> = EXPLANATIONS.iter().map(to_json).collect();
    let rows = EXPLANATIONS.iter().map(|it| {
        let cells = [it.code, it.severity, it.title];
        cells.map(str::to_owned).into()
    });
    print(
        format,
        &json!({"codes": json}),
        &["CODE", "SEVERITY", "MEANS"],
        rows.collect(),
    );
}

fn to_json(it: &Explanation) -> Value {
    json!({
        "code": it.code, "severity": it.severity, "title": it.title, "meaning": it.meaning,
        "by_itself": it.by_itself, "to_do": it.to_do,
    })
}

#[cfg(test)]
mod tests {
    use super::is_meant;

    #[test]
    fn a_code_is_found_as_people_write_it() {
        for asked in ["OGEE-1003", "ogee-1003", "1003"] {
            assert!(is_meant("OGEE-1003", asked), "{asked}");
        }
        assert!(!is_meant("OGEE-1003", "100"));
    }
}
