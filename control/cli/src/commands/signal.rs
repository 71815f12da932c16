//! SIGTERM and SIGINT as a call.

use crate::error::CliError;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `stop` at the first SIGTERM or SIGINT; a second one ends the process at once.
pub(crate) fn on_stop(stop: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::io("cannot watch for signals", &error, "free some memory")
    };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let watch = move || {
        let mut stop = Some(stop);
        for _signal in signals.forever() {
            match stop.take() {
                Some(stop) => stop(),
                None => std::process::exit(130),
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map_err(failed)?;
    Ok(())
}
