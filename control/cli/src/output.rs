//! Results on stdout: a table for people, JSON for programs.

use crate::args::Format;
use comfy_table::{Table, presets};
use serde_json::Value;
use std::io::Write;

/// Prints `json`, or the rows as a table.
pub(crate) fn print(format: Format, json: &Value, header: &[&str], rows: Vec<Vec<String>>) {
    match format {
        Format::Json => line(&format!("{json:#}")),
        Format::Table => {
            let mut table = Table::new();
            table
                .load_preset(presets::NOTHING)
                .set_header(header.to_vec());
            for row in rows {
                table.add_row(row);
            }
            line(&table.to_string());
        }
    }
}

/// Prints a line. A reader that has gone away (`| head`) ends the process quietly, as it would any
/// filter; any other failure of stdout is not survivable either.
pub(crate) fn line(text: &str) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A size for people.
pub(crate) fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    while unit + 1 < units.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let shift = 10 * unit;
    let whole = bytes >> shift;
    let tenths = if unit == 0 {
        0
    } else {
        ((bytes - (whole << shift)) * 10) >> shift
    };
    match tenths {
        0 => format!("{whole} {}", units[unit]),
        tenths => format!("{whole}.{tenths} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn sizes_are_short_and_true() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1024), "1 KiB");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(4 << 30), "4 GiB");
        assert_eq!(human(u64::MAX), "16383.9 PiB");
    }
}
