//! The inputs that fuzzing has kept.

use std::path::Path;

/// Runs each input in a folder once; how many there were. One that panics is named on the standard error.
///
/// # Errors
/// When one cannot be read.
pub fn replay(folder: &Path, run: fn(&[u8])) -> std::io::Result<usize> {
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        inputs.push(entry?.path());
    }
    inputs.sort();
    for path in &inputs {
        let input = std::fs::read(path)?;
        let named = std::panic::catch_unwind(|| run(&input));
        if let Err(panic) = named {
            eprintln!("{}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
    Ok(inputs.len())
}
