//! The commands. One file each; the only place that prints, reads flags, or exits.

use std::process::ExitCode;

/// Runs the command line.
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
