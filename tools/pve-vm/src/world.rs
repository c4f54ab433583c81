//! Open connections, and what must not run side by side.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pve::Client;

/// How many calls that block a daemon may run on a node: it has three workers, for the web interface too
/// (pve-manager, pvedaemon.pm: `max_workers => 3`).
const BLOCKING: usize = 2;

/// The connection to Proxmox.
pub struct World {
    /// The client.
    pub client: Client,
    /// Where it asks, for messages.
    pub endpoints: Vec<String>,
    slots: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

impl World {
    /// A world behind this client.
    pub fn new(client: Client, endpoints: Vec<String>) -> World {
        World { client, endpoints, slots: Mutex::new(BTreeMap::new()) }
    }

    /// A turn for a call that blocks one of a node's daemons.
    pub async fn turn(&self, node: &str) -> Option<OwnedSemaphorePermit> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(node.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(BLOCKING))).clone()
        };
        slot.acquire_owned().await.ok()
    }
}
