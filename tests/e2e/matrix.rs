//! Is every count right, in every Go version, however the program is linked?

use anyhow::Result;
use gotracer_tests::environment::require_root_and_bpf;
use gotracer_tests::{GO_VERSIONS, Gotracer, Program, VARIANTS};
use libtest_mimic::Trial;

use crate::check::{self, Findings};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    let each = |version: &'static str| {
        VARIANTS.iter().map(move |&variant| {
            trial(format!("matrix::tally::go{version}::{variant}"), move || every_count_is_right(version, variant))
        })
    };
    GO_VERSIONS.iter().flat_map(|&version| each(version)).collect()
}

fn every_count_is_right(version: &str, variant: &str) -> Result<()> {
    require_root_and_bpf()?;
    let mut program = Program::start(&Program::find(version, variant, "tally")?, &[])?;
    let tracer = Gotracer::trace(program.pid(), &[])?;
    program.send("go")?;
    let tally = program.tally()?;
    let trace = tracer.stop()?;
    program.quit_in_peace()?;

    let mut findings = Findings::default();
    check::counts(&mut findings, &trace, &tally);
    check::events(&mut findings, &trace, &tally);
    findings.equal("created events", check::created_goids(&trace).len() as u64, tally.created);
    findings.report(&trace)
}
