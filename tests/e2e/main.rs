//! gotracer against real Go programs. Each file is one question asked of it.
//!
//! The programs know exactly what they do (see tests/programs), so the counts are compared for equality, and lost
//! events are a failure. What cannot be run here is reported as skipped; in CI it fails.

mod agent;
mod attach;
mod check;
mod detail;
mod dump;
mod dump_watched;
mod exec;
mod executables;
mod fallbacks;
mod lacking;
mod leaks;
mod leaks_in_files;
mod leaves_no_trace;
mod lifecycle;
mod matrix;
mod placements;
mod proof;
mod record;
mod refusals;
mod run;
mod seed;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use gotracer_tests::environment::{Skip, in_ci};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each test loads both processors of a small machine by itself.
    arguments.test_threads.get_or_insert(1);
    let trials = [
        matrix::trials(),
        lifecycle::trials(),
        fallbacks::trials(),
        agent::trials(),
        attach::trials(),
        detail::trials(),
        dump::trials(),
        dump_watched::trials(),
        exec::trials(),
        executables::trials(),
        lacking::trials(),
        leaks::trials(),
        leaks_in_files::trials(),
        leaves_no_trace::trials(),
        placements::trials(),
        proof::trials(),
        record::trials(),
        refusals::trials(),
        run::trials(),
        seed::trials(),
        top::trials(),
    ];
    let mut trials: Vec<Trial> = trials.into_iter().flatten().collect();
    // Beginnings of names, separated by commas: libtest's filter takes one.
    if let Ok(wanted) = std::env::var("GOTRACER_TESTS") {
        trials.retain(|trial| wanted.split(',').any(|start| trial.name().starts_with(start)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A test, by name.
fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(Skip(reason)) if !in_ci() => Ok(Completion::ignored_with(format!("SKIPPED: {reason}"))),
            _ => Err(Failed::from(format!("{error:#}"))),
        },
    })
}
