//! What all parts of the window share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};

use super::auth::Tickets;
use super::config::ProxmoxConfig;
use super::locks::Locks;
use super::schema::Schema;
use super::state::State;
use crate::world::{Machines, Shared};

/// The cluster's inside.
pub(super) struct Hub {
    pub world: Shared,
    pub machines: Arc<dyn Machines>,
    pub config: ProxmoxConfig,
    pub schema: Arc<Schema>,
    pub runtime: Handle,
    pub locks: Locks,
    pub tickets: Tickets,
    /// Three daemon workers on each node (pvedaemon's `max_workers`).
    pub daemons: BTreeMap<String, Semaphore>,
    /// Told whenever a task ends.
    pub ended: Notify,
    /// Requests as they came, once somebody wants them.
    raw: Mutex<Option<Vec<RawRequest>>>,
    state: Mutex<State>,
}

/// A request as it came over the wire, before anything of the lab's has read it.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// Its method.
    pub method: String,
    /// Path and query, encoded as they came.
    pub target: String,
    /// Its content type.
    pub kind: String,
    /// Its body.
    pub body: bytes::Bytes,
}

impl Hub {
    pub fn new(
        world: Shared,
        machines: Arc<dyn Machines>,
        config: ProxmoxConfig,
        schema: Arc<Schema>,
        runtime: Handle,
        state: State,
    ) -> Hub {
        let daemons = config.nodes.iter().map(|n| (n.name.clone(), Semaphore::new(3))).collect();
        let locks = Locks::new(world.clock);
        Hub {
            world,
            machines,
            config,
            schema,
            runtime,
            locks,
            tickets: Tickets::default(),
            daemons,
            ended: Notify::new(),
            raw: Mutex::new(None),
            state: Mutex::new(state),
        }
    }

    /// What is kept of the requests as they came.
    pub fn raw(&self) -> MutexGuard<'_, Option<Vec<RawRequest>>> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for as long as the guard lives; never across an await.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
