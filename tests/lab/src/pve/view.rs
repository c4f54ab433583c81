//! The cluster as it is, for a person's and a test's eyes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Proxmox;
use super::state::{self, Guest};

/// A guest, for a person's and a test's eyes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestView {
    /// Its id.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// The node that owns it.
    pub node: String,
    /// True while it runs.
    pub running: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// The pool that it is in.
    pub pool: Option<String>,
    /// True for a template.
    pub template: bool,
    /// Its options as they are stored.
    pub config: BTreeMap<String, String>,
}

impl Proxmox {
    /// True while a node is on.
    pub fn node_is_on(&self, node: &str) -> bool {
        self.hub.state().nodes.get(node).is_some_and(|n| n.online)
    }

    /// All guests, in the order of their ids.
    pub fn view(&self) -> Vec<GuestView> {
        let state = self.hub.state();
        let one = |g: &Guest| GuestView {
            vmid: g.vmid,
            name: g.name(),
            node: g.node.clone(),
            running: g.running.is_some(),
            tags: g.config.get("tags").map(|t| t.split(';').map(str::to_owned).collect()).unwrap_or_default(),
            pool: g.pool.clone(),
            template: g.template(),
            config: g.config.clone(),
        };
        state.guests.values().map(one).collect()
    }

    /// The resource pools by name, with their comments.
    pub fn pools(&self) -> BTreeMap<String, String> {
        let state = self.hub.state();
        let one =
            |(name, pool): (&String, &state::Pool)| (name.clone(), pool.comment.clone().unwrap_or_default());
        state.pools.iter().map(one).collect()
    }

    /// The backup jobs by id.
    pub fn jobs(&self) -> BTreeMap<String, serde_json::Value> {
        let state = self.hub.state();
        state.jobs.iter().map(|(id, job)| (id.clone(), serde_json::Value::Object(job.clone()))).collect()
    }

    /// The HA manager's entries: resources, rules and groups by name.
    pub fn ha(&self) -> BTreeMap<String, BTreeMap<String, serde_json::Value>> {
        let state = self.hub.state();
        let all =
            [("resources", &state.ha.resources), ("rules", &state.ha.rules), ("groups", &state.ha.groups)];
        let one = |map: &BTreeMap<String, serde_json::Map<String, serde_json::Value>>| {
            map.iter().map(|(k, v)| (k.clone(), serde_json::Value::Object(v.clone()))).collect()
        };
        all.into_iter().map(|(name, map)| (name.to_owned(), one(map))).collect()
    }

    /// The volumes on a node's storages and on the shared ones, by id.
    pub fn volumes(&self, node: &str) -> Vec<String> {
        let state = self.hub.state();
        let here = state.volumes.keys().filter(|(place, _)| place.is_empty() || place == node);
        here.map(|(_, volid)| volid.clone()).collect()
    }

    /// Whether somebody could migrate the guest now: nothing has it in hand, and no local image is in its drives
    /// (`can't migrate local cdrom`, qemu-server, QemuMigrate.pm).
    pub fn can_move(&self, vmid: u32) -> bool {
        let state = self.hub.state();
        let Some(guest) = state.guests.get(&vmid) else { return false };
        let busy = state.tasks.values().any(|t| t.exit.is_none() && t.id == vmid.to_string());
        !busy && !guest.config.contains_key("lock") && !guest.config.values().any(|v| v.contains(":iso/"))
    }
}
