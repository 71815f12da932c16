//! What cannot be undone is typed.

use crate::error::CliError;
use crate::settings::wrong;
use std::io::{IsTerminal, Write};

/// Has the user type `name` after `question`. `otherwise` says what was not done.
pub(crate) fn confirm(name: &str, question: &str, otherwise: &str) -> Result<(), CliError> {
    if !std::io::stdin().is_terminal() {
        return Err(wrong(otherwise, "nobody can confirm it", "give --yes"));
    }
    eprint!("{question}");
    let _ = std::io::stderr().flush();
    let mut typed = String::new();
    let read = std::io::stdin().read_line(&mut typed);
    match read {
        Ok(_) if typed.trim() == name => Ok(()),
        _ => Err(wrong(
            otherwise,
            "the name typed differs",
            "type the name, or give --yes",
        )),
    }
}
