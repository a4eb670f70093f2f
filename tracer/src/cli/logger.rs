//! What the library and the kernel programs log, on stderr.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Our own crates and kernel programs; libraries log for their own developers.
        metadata.level() <= log::max_level() && metadata.target().starts_with("gotracer")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("gotracer: {}: {}", record.level().as_str().to_lowercase(), record.args());
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
