//! From a PID to a watched process, or to the reason why not.
//!
//! One task a process. Whatever takes long is done on another thread; whatever fails is this process's alone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{spawn_blocking, spawn_local};

use super::discovery::{Candidate, FileKey};
use super::programs::{GoProgram, Known, Slot};
use super::registry::Verdict;
use super::rules;
use super::state::{Shared, State};
use super::watch::Watch;
use crate::events::now;
use crate::tracee::Tracee;
use crate::units::{MonotonicNs, Pid};

/// Looks at a process, and watches it if it is a Go program and wanted.
pub(super) fn start(shared: &Shared, pid: Pid) {
    shared.borrow_mut().looked_at.insert(pid, now());
    let shared = Rc::clone(shared);
    spawn_local(async move {
        let looked = now();
        shared.borrow_mut().looked_at.insert(pid, looked);
        take_on(&shared, pid, looked).await;
        let mut state = shared.borrow_mut();
        if !state.watches.contains_key(&pid) && state.looked_at.get(&pid) == Some(&looked) {
            state.looked_at.remove(&pid);
        }
    });
}

async fn take_on(shared: &Shared, pid: Pid, looked: MonotonicNs) {
    let (lookers, min_age) = {
        let state = shared.borrow();
        (Rc::clone(&state.lookers), state.config.discovery.min_age.0)
    };
    let mut waited = false;
    let (candidate, slot, known) = loop {
        let wait = {
            let Ok(_permit) = lookers.acquire().await else { return };
            let Ok(Some(candidate)) = spawn_blocking(move || Candidate::look(pid)).await else { return };
            let slot = shared.borrow_mut().programs.slot(candidate.key);
            if waited || slot.known().is_some() || candidate.age >= min_age {
                let known = slot.read(&candidate.traits.exe, &candidate.file).await;
                break (candidate, slot, known);
            }
            min_age - candidate.age
        };
        // Most programs that are new to us and end at once are never read.
        tokio::time::sleep(wait.max(Duration::from_millis(1))).await;
        waited = true;
    };
    let (start_ticks, traits) = (candidate.process.start_ticks(), candidate.traits.clone());
    let is_current = |state: &State| state.looked_at.get(&pid) == Some(&looked);
    let go = {
        let mut state = shared.borrow_mut();
        if !is_current(&state) {
            return;
        }
        let config = Rc::clone(&state.config);
        let full = state.watches.len() >= config.discovery.max_processes;
        let mut note = |verdict, version| state.registry.note(pid, start_ticks, &traits, version, verdict);
        match known {
            Known::NotGo => return,
            Known::Unsupported(reason) => {
                log::info!("process {pid} ({}) cannot be watched: {reason}", traits.exe);
                note(Verdict::Unsupported { reason }, None);
                return;
            }
            Known::Go(go) => {
                let version = Some(go.program.binary.version().to_string());
                if let Some(rule) = rules::denied_by(&config, &traits) {
                    note(Verdict::Denied { rule }, version);
                    return;
                }
                if full {
                    note(Verdict::TooMany, version);
                    return;
                }
                note(Verdict::Attaching, version);
                go
            }
        }
    };
    if let Err(reason) = attach(shared, candidate, &slot, &go, looked).await {
        let mut state = shared.borrow_mut();
        if is_current(&state) {
            log::warn!("process {pid} ({}) is not watched: {reason}", traits.exe);
            state.count_error("attaching");
            state.registry.note_failure(pid, start_ticks, &traits, &reason);
        }
    }
}

async fn attach(
    shared: &Shared,
    candidate: Candidate,
    slot: &Rc<Slot>,
    go: &Arc<GoProgram>,
    looked: MonotonicNs,
) -> Result<(), String> {
    let kernel = Rc::clone(&shared.borrow().kernel);
    let in_use = slot.probe(go, &kernel).await.map_err(|error| chain(&error))?;
    let Candidate { process, key, traits, container, .. } = candidate;
    let (pid, start_ticks) = (process.pid(), process.start_ticks());
    let tracee = match Tracee::with_program(process, go.program.clone()) {
        Ok(tracee) => tracee,
        // It ended meanwhile.
        Err(_) if super::discovery::start_ticks(pid) != Some(start_ticks) => return Ok(()),
        Err(error) => return Err(chain(&error)),
    };
    {
        let mut state = shared.borrow_mut();
        if state.looked_at.get(&pid) != Some(&looked) {
            return Ok(());
        }
        // Before its first event comes.
        let looks = state.config.metrics.snapshot_interval.0;
        let mut watch = Watch::new(tracee, Arc::clone(go), traits.clone(), container, in_use, looks, key);
        watch.name_pod(&mut state.pods);
        watch.set_level(slot.level());
        let recorder = &state.config.flight_recorder;
        watch.recorder().limit(recorder.memory.0 as usize, recorder.keep.0);
        state.watches.insert(pid, watch);
    }
    let begun = kernel.begin(pid, go.entry).await;
    let mut state = shared.borrow_mut();
    let Some(watch) = state.watches.get_mut(&pid).filter(|watch| watch.process().start_ticks() == start_ticks) else {
        return Ok(());
    };
    if let Err(error) = begun {
        state.end(pid);
        // It is not current any more; say it here.
        state.count_error("attaching");
        state.registry.note_failure(pid, start_ticks, &traits, &chain(&error));
        return Ok(());
    }
    let same = watch.process().open_exe().and_then(|file| {
        FileKey::of(&file).map_err(|source| crate::process::ProcessError::Read { path: traits.exe.clone(), source })
    });
    if watch.process().has_exited() || same.is_ok_and(|now| now != key) {
        // It ended, or replaced its program; then the kernel's event tells of it.
        state.end(pid);
        return Ok(());
    }
    watch.begin();
    let tracee = Arc::clone(&watch.tracee);
    let waiting = {
        let shared = Rc::clone(shared);
        spawn_local(async move {
            if let Err(error) = tracee.process().exited().await {
                log::warn!("the end of process {pid} cannot be waited for: {error}");
                return;
            }
            let mut state = shared.borrow_mut();
            if state.watches.get(&pid).is_some_and(|watch| watch.process().start_ticks() == start_ticks) {
                state.end(pid);
            }
        })
    };
    watch.exit = Some(waiting.abort_handle());
    let version = watch.identity.go_version.clone();
    log::info!("process {pid} ({}) is watched", traits.exe);
    state.registry.note(pid, start_ticks, &traits, Some(version), Verdict::Watched);
    state.watched_total += 1;
    Ok(())
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
