//! Faults that a test injects: which request, how often, and what happens instead.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::journal::Window;

/// Something that happens to the world at the moment of a request.
#[derive(Clone)]
pub struct Event(Arc<dyn Fn() + Send + Sync>);

impl Event {
    /// Does this, within the lab's runtime.
    pub fn new(happens: impl Fn() + Send + Sync + 'static) -> Event {
        Event(Arc::new(happens))
    }

    pub(crate) fn happens(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Event")
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Event) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What happens to a request that a [`Fault`] matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answers with this HTTP status and text (as each window words errors), not executed.
    Status(u16, String),
    /// Executes, then answers with this status and text: the outcome is unknown to the client.
    StatusAfter(u16, String),
    /// Closes the connection before anything is done.
    DropBefore,
    /// Executes, then closes the connection without an answer.
    DropAfter,
    /// Never answers (until the client gives up), not executed.
    Hang,
    /// Waits so long (nominal), then goes on as usual.
    Delay(Duration),
    /// Proxmox: the task starts, does nothing, and ends with this exit status.
    TaskEnd(String),
    /// Proxmox: the task does its work and ends with this exit status; `VANISH`: nobody knows it afterwards.
    TaskEndAfter(String),
    /// Proxmox: something happens to the world, then it goes on as usual.
    Meanwhile(Event),
    /// SSH: the command exits so, with this text on stderr, not executed.
    Exit(i32, String),
}

/// A rule: the next `times` requests in `window` whose text contains `matching` meet `action`.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The window that it applies to.
    pub window: Window,
    /// A part of `TARGET REQUEST`, such as `POST /nodes/pve1/qemu/9000/clone` or `lb-1 systemctl`.
    pub matching: String,
    /// How many matching requests to let pass first.
    pub skip: usize,
    /// How many to hit after that.
    pub times: usize,
    /// What happens.
    pub action: Action,
}

/// The faults in force.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Fault>>>,
}

impl Faults {
    /// Adds a rule.
    pub fn inject(&self, fault: Fault) {
        self.lock().push(fault);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// How many requests the first rule with this `matching` still hits; `None` without such a rule.
    pub fn left(&self, matching: &str) -> Option<usize> {
        self.lock().iter().find(|rule| rule.matching == matching).map(|rule| rule.times)
    }

    /// What should happen to this request, counting it. Called once a request by each window.
    pub fn take(&self, window: Window, target: &str, request: &str) -> Option<Action> {
        let line = format!("{target} {request}");
        for rule in self.lock().iter_mut() {
            if rule.window != window || rule.times == 0 || !line.contains(&rule.matching) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.action.clone());
        }
        None
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.rules.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
