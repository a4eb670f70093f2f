//! What is true of a creation site for good.
//!
//! In: a binary. Out: whether the function with the `go` statement runs as a deferred call, whether the function that is
//! started counts a `sync.WaitGroup` down.

use crate::analysis::SiteKey;
use crate::binary::Binary;
use crate::units::{Pc, RemoteAddr};

/// One site.
#[derive(Debug)]
pub(super) struct SiteFacts {
    pub(super) key: SiteKey,
    pub(super) gopc: RemoteAddr,
    pub(super) startpc: RemoteAddr,
    /// The site of those who created them, as far as one was seen.
    pub(super) creator: Option<u32>,
    pub(super) deferred: Option<bool>,
    pub(super) counts_down: Option<bool>,
}

impl SiteFacts {
    pub(super) fn new(key: SiteKey, gopc: RemoteAddr, startpc: RemoteAddr) -> Self {
        Self { key, gopc, startpc, creator: None, deferred: None, counts_down: None }
    }
}

/// Answers from a binary's code.
#[derive(Debug, Default)]
pub(super) struct StaticFacts {}

impl StaticFacts {
    pub(super) fn runs_deferred(&mut self, _binary: &Binary, _gopc: Pc) -> bool {
        false
    }

    pub(super) fn counts_down(&mut self, _binary: &Binary, _startpc: Pc) -> bool {
        false
    }
}
