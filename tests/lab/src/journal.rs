//! The ordered record of everything that clients asked of the lab.

use std::sync::{Arc, Mutex};

use serde::Serialize;

/// Which window a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// The Proxmox VE REST API.
    Pve,
    /// A command or file transfer on a machine.
    Ssh,
    /// The Kubernetes API.
    Kube,
    /// The small server of upstream artefacts.
    Artefacts,
}

/// One request.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Position in the order of arrival, from 0.
    pub seq: usize,
    /// The window that it came through.
    pub window: Window,
    /// Who was asked: a Proxmox node, a machine's name, an API server's address.
    pub target: String,
    /// What was asked, such as `POST /nodes/pve1/qemu/9000/clone` or `systemctl reload haproxy`.
    pub request: String,
    /// True when it may change the world: all but reads and dry runs.
    pub changing: bool,
    /// True when the lab did not know the request and refused it (501, 127).
    pub unknown: bool,
    /// The complete argument list of a command, for law 7 (no secret on a command line).
    pub argv: Vec<String>,
}

/// A shared, append-only list of [`Entry`].
#[derive(Clone, Debug, Default)]
pub struct Journal {
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Journal {
    /// Appends a request and gives its position.
    pub fn record(&self, window: Window, target: &str, request: &str, changing: bool) -> usize {
        self.push(Entry {
            seq: 0,
            window,
            target: target.into(),
            request: request.into(),
            changing,
            unknown: false,
            argv: Vec::new(),
        })
    }

    /// Appends a command with its argument list.
    pub fn record_command(&self, target: &str, argv: &[String], changing: bool, unknown: bool) -> usize {
        self.push(Entry {
            seq: 0,
            window: Window::Ssh,
            target: target.into(),
            request: argv.join(" "),
            changing,
            unknown,
            argv: argv.to_vec(),
        })
    }

    /// Appends a command as it begins; what it turned out to be is told later by [`Journal::amend`].
    ///
    /// `request` is the short form (a script's name and its parameters); `argv` is everything that was sent.
    pub fn record_call(&self, target: &str, request: &str, argv: &[String]) -> usize {
        self.push(Entry {
            seq: 0,
            window: Window::Ssh,
            target: target.into(),
            request: request.into(),
            changing: false,
            unknown: false,
            argv: argv.to_vec(),
        })
    }

    /// Tells of an entry whether it changed something, and whether the lab did not know it.
    pub fn amend(&self, seq: usize, changing: bool, unknown: bool) {
        if let Some(entry) = self.lock().get_mut(seq) {
            entry.changing = changing;
            entry.unknown = unknown;
        }
    }

    /// Appends a request that the lab refused because it does not know it.
    pub fn record_unknown(&self, window: Window, target: &str, request: &str) -> usize {
        self.push(Entry {
            seq: 0,
            window,
            target: target.into(),
            request: request.into(),
            changing: false,
            unknown: true,
            argv: Vec::new(),
        })
    }

    fn push(&self, mut entry: Entry) -> usize {
        let mut entries = self.lock();
        entry.seq = entries.len();
        entries.push(entry);
        entries.len() - 1
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// How many entries there are; a mark for [`Journal::since`].
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True when nothing was asked yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries from position `mark` on.
    pub fn since(&self, mark: usize) -> Vec<Entry> {
        self.lock().iter().skip(mark).cloned().collect()
    }

    /// The entries from `mark` on that may have changed the world.
    pub fn changing_since(&self, mark: usize) -> Vec<Entry> {
        self.since(mark).into_iter().filter(|e| e.changing).collect()
    }

    /// Everything that the lab did not know.
    pub fn unknown(&self) -> Vec<Entry> {
        self.since(0).into_iter().filter(|e| e.unknown).collect()
    }
}
