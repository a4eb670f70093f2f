//! From an alarm that fires to what came of it: evidence, then help, and word of both.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::{spawn_blocking, spawn_local};

use super::actions;
use super::incident::{Done, Incident};
use super::state::Decision;
use crate::agent::clock::unix_ms;
use crate::agent::config::Alarm;
use crate::agent::evidence::{self, Material};
use crate::agent::notice::Notice;
use crate::agent::state::Shared;
use crate::tracee::Tracee;
use crate::units::{MonotonicNs, Pid};

/// Looks at every alarm for every process, after each sample.
pub fn evaluate(shared: &Shared, released: MonotonicNs, now: Instant) {
    let mut fired = Vec::new();
    {
        let state = &mut *shared.borrow_mut();
        let config = Rc::clone(&state.config);
        for watch in state.watches.values_mut() {
            let goroutines = watch.goroutines();
            for alarm in config.alarm.iter().filter(|alarm| alarm.matches.fits(&watch.traits)) {
                let value = watch.figure(alarm.figure);
                let process = (watch.pid(), watch.process().start_ticks());
                let decision = state.breaker.take(alarm, process, value, goroutines, now);
                let name = alarm.name.as_str();
                let Some(value) = value.filter(|_| decision != Decision::Quiet) else {
                    if decision == Decision::Clears {
                        state.notices.push(Notice::cleared(name, &watch.identity));
                    }
                    continue;
                };
                match decision {
                    Decision::Quiet => {}
                    Decision::Clears => state.notices.push(Notice::cleared(name, &watch.identity)),
                    Decision::CoolingDown | Decision::TooOften => {
                        let why = if decision == Decision::TooOften { "max_per_hour" } else { "cooldown" };
                        state.notices.push(Notice::suppressed(name, &watch.identity, value, why));
                    }
                    Decision::Fires => fired.push((watch.pid(), alarm.clone(), value)),
                }
            }
        }
    }
    for (pid, alarm, value) in fired {
        begin(shared, released, pid, alarm, value);
    }
}

/// Gathers what is here, and leaves the rest to a task.
fn begin(shared: &Shared, released: MonotonicNs, pid: Pid, alarm: Alarm, value: f64) {
    let (incident, material, tracee) = {
        let state = &mut *shared.borrow_mut();
        let Some(watch) = state.watches.get_mut(&pid) else { return };
        let incident = Incident {
            unix_ms: unix_ms(),
            alarm: alarm.name.as_str().to_owned(),
            figure: alarm.figure,
            value,
            above: alarm.above,
            below: alarm.below,
            samples: alarm.samples,
            process: Arc::clone(&watch.identity),
            goroutines: watch.goroutines(),
            dry_run: alarm.dry_run,
            evidence: None,
        };
        state.notices.push(Notice::fired(&incident));
        let recording = watch.recording(released).map_err(|error| error.to_string());
        let material = Material {
            incident: incident.clone(),
            alarm: alarm.clone(),
            at: SystemTime::now(),
            tracee: Arc::clone(&watch.tracee),
            subject: watch.subject(),
            recording,
            series: watch.series().points().cloned().collect(),
            findings: watch.findings().to_vec(),
            proof: watch.proven.last.clone().map(|outcome| (watch.proven.unix_ms, outcome)),
            config: state.config.evidence.clone(),
        };
        (incident, material, Arc::clone(&watch.tracee))
    };
    spawn_local(respond(Rc::clone(shared), incident, material, alarm, tracee));
}

async fn respond(shared: Shared, mut incident: Incident, material: Material, alarm: Alarm, tracee: Arc<Tracee>) {
    let turn = Rc::clone(&shared.borrow().evidence_turn);
    let written = {
        // One at a time: they share the folder and its size.
        let Ok(_turn) = turn.acquire().await else { return };
        spawn_blocking(move || evidence::write(&material)).await
    };
    let written = written.unwrap_or_else(|error| Err(evidence::EvidenceError::Thread(error.to_string())));
    {
        let mut state = shared.borrow_mut();
        match &written {
            Ok(folder) => {
                incident.evidence = Some(folder.clone());
                state.evidence_written += 1;
                state.notices.push(Notice::evidence(&incident));
            }
            Err(error) => {
                log::error!("alarm {}: no evidence: {error}", incident.alarm);
                state.count_error("writing_evidence");
                state.notices.push(Notice::no_evidence(&incident, &error.to_string()));
                if !state.config.evidence.act_without {
                    return;
                }
            }
        }
    }
    let config = Rc::clone(&shared.borrow().config);
    let done = actions::all(&alarm, &incident, &tracee, &config).await;
    let folder = incident.evidence.clone();
    {
        let mut state = shared.borrow_mut();
        for action in &done {
            if let Done { failed: Some(why), action, .. } = action {
                log::error!("alarm {}: {action} failed: {why}", incident.alarm);
                state.count_error("acting");
            }
            state.notices.push(Notice::action(&incident, action));
        }
    }
    if let Some(folder) = folder
        && !done.is_empty()
        && let Ok(Err(error)) = spawn_blocking(move || evidence::note_actions(&folder, &done)).await
    {
        log::error!("alarm {}: what was done is not with the evidence: {error}", incident.alarm);
    }
}
