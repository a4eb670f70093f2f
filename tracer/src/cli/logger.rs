//! What the library and the kernel programs log, on stderr.

use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

/// What was logged while stderr was not to be written to: a picture is on the terminal.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);
/// Lines held at most.
const MOST_HELD: usize = 100;

/// Keeps what is logged from now on instead of printing it.
pub(super) fn hold() {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// The newest line that is held.
pub(super) fn held() -> Option<String> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.last().cloned()
}

/// Prints what was held, and what comes from now on.
pub(super) fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.unwrap_or_default().iter().for_each(|line| eprintln!("{line}"));
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Our own crates and kernel programs; libraries log for their own developers.
        metadata.level() <= log::max_level() && metadata.target().starts_with("gotracer")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("gotracer: {}: {}", record.level().as_str().to_lowercase(), record.args());
            match HELD.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                Some(held) if held.len() < MOST_HELD => held.push(line),
                Some(_) => {}
                None => eprintln!("{line}"),
            }
        }
    }

    fn flush(&self) {}
}

/// Warnings always; with `verbose` 1 what is done, with 2 or more what the kernel programs could not read.
pub(super) fn init(verbose: u8) {
    log::set_max_level(match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
    // Fails only if a logger was set before, and this is the only place that sets one.
    let _ = log::set_logger(&Stderr);
}
