//! Open connections, what must not run side by side, and an eye on the Proxmox nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::pve::{Class, Client, Error, Request, class, list, number, text};
use crate::seen::Broken;

/// How many calls that block a daemon may run on a node: it has three workers, for the web interface too
/// (pve-manager, pvedaemon.pm: `max_workers => 3`).
const BLOCKING: usize = 2;
/// How many tasks beside clones run on a node, as many as Proxmox itself starts at once for all its guests
/// (pve-cluster, DataCenterConfig.pm: `max_workers`, 4).
const TASKS: usize = 4;
/// How many machines are asked over SSH at the same time.
const DIALS: usize = 128;
/// How often the nodes are looked at while something is waited for.
const LOOK: Duration = Duration::from_secs(2);
/// How often in succession a node must be seen off.
const CERTAIN: u32 = 2;

/// The connection to Proxmox.
pub struct World {
    /// The client.
    pub client: Client,
    /// Where it asks, for messages.
    pub endpoints: Vec<String>,
    slots: Mutex<BTreeMap<(String, usize), Arc<Semaphore>>>,
    dials: Semaphore,
    nodes: tokio::sync::Mutex<Nodes>,
}

/// What the last looks at the nodes showed.
struct Nodes {
    at: Instant,
    /// How often in succession each node was off.
    off: BTreeMap<String, u32>,
}

impl World {
    /// A world behind this client.
    pub fn new(client: Client, endpoints: Vec<String>) -> World {
        let nodes = tokio::sync::Mutex::new(Nodes { at: Instant::now(), off: BTreeMap::new() });
        World { client, endpoints, slots: Mutex::new(BTreeMap::new()), dials: Semaphore::new(DIALS), nodes }
    }

    /// A turn for a call that blocks one of a node's daemons.
    pub async fn turn(&self, node: &str) -> Option<OwnedSemaphorePermit> {
        self.slot(node, BLOCKING).await
    }

    /// Room for a task on a node.
    pub async fn room(&self, node: &str) -> Option<OwnedSemaphorePermit> {
        self.slot(node, TASKS).await
    }

    /// A turn for a connection over SSH.
    pub async fn dial(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.dials.acquire().await.ok()
    }

    async fn slot(&self, node: &str, width: usize) -> Option<OwnedSemaphorePermit> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let slot = slots.entry((node.to_owned(), width));
            slot.or_insert_with(|| Arc::new(Semaphore::new(width))).clone()
        };
        slot.acquire_owned().await.ok()
    }

    /// Resolves once one of these nodes has gone off, and names it. All who wait share one look in two seconds.
    pub async fn lost(&self, nodes: &[&str]) -> String {
        if nodes.is_empty() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let mut seen = self.nodes.lock().await;
            if seen.at.elapsed() >= LOOK {
                self.look(&mut seen).await;
            }
            if let Some(node) =
                nodes.iter().find(|n| seen.off.get(**n).is_some_and(|times| *times >= CERTAIN))
            {
                return (*node).to_owned();
            }
        }
    }

    /// The first of these nodes that is off now.
    pub async fn off(&self, nodes: &[&str]) -> Option<String> {
        let mut seen = self.nodes.lock().await;
        self.look(&mut seen).await;
        nodes.iter().find(|n| seen.off.contains_key(**n)).map(|n| (*n).to_owned())
    }

    /// Whether a node makes a guest at the moment; the task may be anybody's.
    ///
    /// # Errors
    /// The node does not tell.
    pub async fn makes(&self, node: &str) -> Result<bool, Error> {
        let request =
            Request::get(format!("/nodes/{node}/tasks")).with("source", "active").with("limit", 500);
        let tasks = self.client.read(request).await?;
        let making =
            |t: &Value| matches!(text(t, "type").as_deref(), Some("qmclone" | "qmcreate" | "vzcreate"));
        Ok(list(&tasks).iter().any(making))
    }

    /// A task on one of these nodes that was to make this guest, or to clone one of these templates, and that never
    /// came to an end; the newest. The lists tell a login of its own tasks, and of all where it may audit the node.
    pub async fn broken(&self, nodes: &[String], vmid: u32, templates: &[u32]) -> Option<Broken> {
        let left = |t: &Value| {
            let id = number(t, "id").and_then(|id| u32::try_from(id).ok());
            let makes = match text(t, "type").as_deref() {
                // It bears the id of what is cloned (qemu-server, API2/Qemu.pm).
                Some("qmclone") => id.is_some_and(|id| templates.contains(&id)),
                Some("qmcreate" | "vzcreate") => id == Some(vmid),
                _ => false,
            };
            let end = text(t, "status").map(|end| class(None, &end));
            (makes && end == Some(Class::Unknown)).then(|| (number(t, "starttime"), text(t, "upid")))
        };
        let mut found = Vec::new();
        for node in nodes {
            let request =
                Request::get(format!("/nodes/{node}/tasks")).with("source", "all").with("limit", 500);
            // Who cannot be asked tells nothing; it is a hint alone.
            let tasks = self.client.read(request).await.unwrap_or_default();
            let here = list(&tasks).iter().filter_map(left);
            found.extend(here.map(|(start, task)| (start, node.clone(), task.unwrap_or_default())));
        }
        found.into_iter().max().map(|(_, node, task)| Broken { node, task })
    }

    /// Asks the cluster, whose members know soonest. What cannot be asked is not off.
    async fn look(&self, seen: &mut Nodes) {
        let answer = tokio::time::timeout(5 * LOOK, self.client.send(&Request::get("/nodes"))).await;
        seen.at = Instant::now();
        let Ok(Ok(nodes)) = answer else { return };
        let is_off = |node: &&Value| text(node, "status").as_deref() == Some("offline");
        let off = list(&nodes).iter().filter(is_off).filter_map(|n| text(n, "node"));
        seen.off = off.map(|n| (n.clone(), seen.off.get(&n).map_or(1, |times| times + 1))).collect();
    }
}
