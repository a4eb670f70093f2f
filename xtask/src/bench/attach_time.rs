//! How long it takes to attach and to detach: a whole session, and probe by probe.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::Result;
use gotracer::events::EventStream;
use gotracer::probes::KernelPrograms;
use gotracer::process::Process;
use gotracer::session::{self, Session};

use super::Plan;
use super::stats::{Spread, shown};
use super::subject::Subject;

pub fn measure(subject: &Subject, plan: &Plan) -> Result<String> {
    let mut table = String::from("| | attach, ms | detach, ms |\n| --- | --- | --- |\n");
    let (mut attach, mut detach, mut count) = (Vec::new(), Vec::new(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Buffers belong to the runtime that they were opened in.
    let _entered = runtime.enter();
    for _ in 0..plan.attaches {
        let begin = Instant::now();
        let mut session = Session::attach(Process::open(subject.pid())?)?;
        attach.push(ms(begin));
        count = session.probes();
        let begin = Instant::now();
        session.finish(&mut Vec::new())?;
        detach.push(ms(begin));
    }
    let mut row = |name: &str, attach: Vec<f64>, detach: Vec<f64>| {
        let _ = writeln!(table, "| {name} | {} | {} |", shown(Spread::of(attach), 1), shown(Spread::of(detach), 1));
    };
    row(&format!("a session, from the PID to announced ({count} probes)"), attach, detach);

    let begin = Instant::now();
    let (mut programs, maps) = KernelPrograms::load()?;
    let load = ms(begin);
    let begin = Instant::now();
    let (_stream, _kept) = (EventStream::open(maps.events, maps.counts)?, maps.kept);
    row("of these, the object", vec![load], Vec::new());
    row("of these, the buffers", vec![ms(begin)], Vec::new());
    for placement in subject.probes() {
        let program = subject.program();
        let (mut attach, mut detach) = (Vec::new(), Vec::new());
        // The first time, the program itself is loaded.
        for round in 0..=plan.attaches {
            let begin = Instant::now();
            let probes = programs.attach(subject.pid(), &program.exe, session::entry(program), [placement])?;
            let attached = ms(begin);
            let begin = Instant::now();
            programs.detach(probes)?;
            if round > 0 {
                attach.push(attached);
                detach.push(ms(begin));
            }
        }
        row(&format!("the probe in {}", placement.function), attach, detach);
    }
    Ok(table)
}

fn ms(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}
