//! What a running movement may use of its surroundings.

use std::sync::Arc;
use std::time::Duration;

use crate::progress::Progress;
use crate::{Failure, Site, Slot};

/// How much runs side by side where nothing is said.
const JOBS: usize = 8;

/// The surroundings of one run: the site, progress, bounds. Cheap to clone.
#[derive(Clone)]
pub struct Ctx {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) tool: &'static str,
    pub(crate) verb: String,
    pub(crate) site: Site,
    pub(crate) jobs: Option<usize>,
    pub(crate) progress: Progress,
    pub(crate) accept_new_host_keys: bool,
}

impl Ctx {
    /// The tool's name, for locks and field managers.
    pub fn tool(&self) -> &'static str {
        self.inner.tool
    }

    /// The verb that runs, such as `apply`: for a movement that looks at more for one verb than for the others.
    pub fn verb(&self) -> &str {
        &self.inner.verb
    }

    /// The operator's machine.
    pub fn site(&self) -> &Site {
        &self.inner.site
    }

    /// Who holds a lock that this run takes, for the second operator's eyes.
    pub fn holder(&self) -> String {
        let site = self.site();
        let user = site.env("USER").unwrap_or_else(|| "somebody".to_owned());
        let from = site.env("HOSTNAME").map(|h| format!(" at {h}")).unwrap_or_default();
        format!("{} run by {user}{from}, process {}", self.tool(), std::process::id())
    }

    /// How much may run side by side.
    pub fn jobs(&self) -> usize {
        self.inner.jobs.unwrap_or(JOBS)
    }

    /// True when a step of this kind may start beside so many that hold a job.
    pub(crate) fn has_room(&self, slot: Slot, busy: usize) -> bool {
        match slot {
            Slot::Job => busy < self.jobs(),
            Slot::Elsewhere => self.inner.jobs.is_none_or(|jobs| busy < jobs),
            Slot::Wait => true,
        }
    }

    /// True when a step of this kind holds a job.
    pub(crate) fn holds_job(&self, slot: Slot) -> bool {
        slot == Slot::Job || (slot == Slot::Elsewhere && self.inner.jobs.is_some())
    }

    /// True when an unknown SSH host key is accepted and recorded.
    pub fn accept_new_host_keys(&self) -> bool {
        self.inner.accept_new_host_keys
    }

    /// Says what is being waited for; shown as progress, in events, and when the time is up.
    pub fn waiting(&self, for_what: impl Into<String>) {
        self.inner.progress.waiting(for_what.into());
    }

    /// True where a terminal shows what is being waited for; elsewhere a line now and then has to do.
    pub fn shows_bars(&self) -> bool {
        self.inner.progress.shows_bars()
    }

    /// Writes a sentence to stderr.
    pub fn say(&self, message: &str) {
        self.inner.progress.line(message);
    }

    /// Runs `probe` until it gives a value: the evidence that is waited for. The pause between two looks grows
    /// from 20 ms to 1 s, so that a quick world is met at once and a slow one is not pestered.
    ///
    /// # Errors
    /// What the probe fails with, or exit 5 when `at_most` has passed.
    pub async fn wait_for<T, P, F>(&self, what: &str, at_most: Duration, probe: P) -> Result<T, Failure>
    where
        P: FnMut() -> F,
        F: Future<Output = Result<crate::Waiting<T>, Failure>>,
    {
        crate::wait::wait_for(self, what, at_most, probe).await
    }

    /// Writes a file of the operator's atomically, with this mode; false when it was the same already.
    ///
    /// # Errors
    /// Exit 4 when it cannot be written.
    pub fn write_file(&self, path: &std::path::Path, content: &[u8], mode: u32) -> Result<bool, Failure> {
        crate::output::write_file(path, content, mode)
    }
}
