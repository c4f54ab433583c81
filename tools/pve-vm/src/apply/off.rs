//! A machine that is off although it should run: whether somebody is about to start it again.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pve::{Request, flag, list};
use crate::step::At;
use crate::world::World;

/// How long a machine may be off that nobody is known to start again: `qm reboot` has it off for a moment.
const OFF: Duration = Duration::from_secs(5);
/// The same where the HA manager starts it, which takes its rounds of 10 s (pve-ha-manager, HA/CRM.pm).
const RECOVERED: Duration = Duration::from_secs(120);

/// Since when a machine has not been as it should.
#[derive(Default)]
pub(super) struct Grace(Mutex<Option<Instant>>);

impl Grace {
    pub(super) fn over(&self, length: Duration) -> bool {
        self.since().get_or_insert_with(Instant::now).elapsed() > length
    }

    pub(super) fn begin_anew(&self) {
        *self.since() = None;
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is still waited for, while a task or the HA manager may be about to start it.
///
/// # Errors
/// Why nobody will, and what helps.
pub(super) async fn switched_off(
    world: &World,
    at: &At,
    state: &Value,
    off: &Grace,
) -> Result<String, (String, String)> {
    let managed = state.get("ha").is_some_and(|ha| flag(ha, "managed"));
    let tells = |why: &str| Ok(format!("Proxmox says that it is off; {why}"));
    if !off.over(if managed { RECOVERED } else { OFF }) {
        return tells(if managed { "the HA manager is to start it" } else { "it was switched off" });
    }
    let request = Request::get(format!("/nodes/{}/tasks", at.node));
    let tasks = world.client.read(request.with("source", "active").with("vmid", at.vmid)).await;
    if tasks.is_ok_and(|t| !list(&t).is_empty()) {
        return tells("a task has it in hand");
    }
    Err((
        format!("it was switched off while it was waited for, and nothing on node {} starts it", at.node),
        format!("pvenode task list --vmid {}, on node {}, tells who did; then run again", at.vmid, at.node),
    ))
}
