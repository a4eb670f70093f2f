//! What became of each Go process, with the reason. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::rules::Traits;
use crate::units::Pid;

/// What became of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It is being attached to.
    Attaching,
    /// It is watched.
    Watched,
    /// A rule says that it is to be left alone.
    Denied {
        /// The rule's number, from 1.
        rule: usize,
    },
    /// It cannot be traced.
    Unsupported {
        /// Why.
        reason: Arc<str>,
    },
    /// Attaching to it failed; it is tried again at the next look through /proc, a few times.
    Failed {
        /// Why.
        reason: Arc<str>,
        /// How often it was tried.
        tries: u32,
    },
    /// `discovery.max_processes` are watched already.
    TooMany,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Watched => "watched",
            Self::Denied { .. } => "denied",
            Self::Unsupported { .. } => "unsupported",
            Self::Failed { .. } => "failed",
            Self::TooMany => "too_many",
        }
    }
}

/// One Go process.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// The process.
    pub pid: Pid,
    /// When it began, in clock ticks since the machine's start: with the PID, its identity.
    pub start_ticks: u64,
    /// Its executable.
    pub exe: String,
    /// Its command line.
    pub args: String,
    /// Its cgroup.
    pub cgroup: String,
    /// Its container.
    pub container: Option<String>,
    /// The Go version, where that is known.
    pub go_version: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How often a failure is tried again.
const TRIES: u32 = 3;

/// All Go processes.
#[derive(Debug, Default)]
pub struct Registry {
    entries: BTreeMap<Pid, Entry>,
}

impl Registry {
    /// Notes what became of a process.
    pub fn note(&mut self, pid: Pid, start_ticks: u64, traits: &Traits, go_version: Option<String>, verdict: Verdict) {
        let Traits { exe, args, container, cgroup } = traits.clone();
        self.entries.insert(pid, Entry { pid, start_ticks, exe, args, cgroup, container, go_version, verdict });
    }

    /// Notes that attaching failed.
    pub fn note_failure(&mut self, pid: Pid, start_ticks: u64, traits: &Traits, reason: &str) {
        let tries = match self.entries.get(&pid) {
            Some(Entry { verdict: Verdict::Failed { tries, .. }, start_ticks: same, .. }) if *same == start_ticks => {
                *tries
            }
            _ => 0,
        };
        let verdict = Verdict::Failed { reason: reason.into(), tries: tries + 1 };
        self.note(pid, start_ticks, traits, None, verdict);
    }

    /// A process is no more.
    pub fn remove(&mut self, pid: Pid) {
        self.entries.remove(&pid);
    }

    /// Forgets those for which `gone` says so.
    pub fn forget(&mut self, gone: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, entry| !gone(entry));
    }

    /// Whether a process that a look through /proc has found is new, or to be tried again.
    #[must_use]
    pub fn is_open(&self, pid: Pid) -> bool {
        match self.entries.get(&pid).map(|entry| &entry.verdict) {
            None => true,
            Some(Verdict::Failed { tries, .. }) => *tries < TRIES,
            Some(Verdict::TooMany) => true,
            Some(_) => false,
        }
    }

    /// One process.
    #[must_use]
    pub fn get(&self, pid: Pid) -> Option<&Entry> {
        self.entries.get(&pid)
    }

    /// All of them, by PID.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// How many there are of each verdict.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let mut counts: BTreeMap<&'static str, u64> =
            ["watched", "denied", "unsupported", "failed", "too_many"].map(|name| (name, 0)).into();
        for entry in self.entries.values() {
            *counts.entry(entry.verdict.name()).or_default() += 1;
        }
        counts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_tried_again_a_few_times() {
        let (mut registry, traits) = (Registry::default(), Traits::default());
        for try_number in 1..=TRIES {
            assert!(registry.is_open(Pid(7)));
            registry.note_failure(Pid(7), 1, &traits, "no memory");
            let expected = Verdict::Failed { reason: "no memory".into(), tries: try_number };
            assert_eq!(registry.get(Pid(7)).map(|entry| entry.verdict.clone()), Some(expected));
        }
        assert!(!registry.is_open(Pid(7)));
        // Another process with the same PID begins anew.
        registry.note_failure(Pid(7), 2, &traits, "no memory");
        assert!(registry.is_open(Pid(7)));
    }
}
