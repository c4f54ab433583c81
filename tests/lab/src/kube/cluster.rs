//! One cluster: its objects, its control planes, its kubelets, and the task that runs its controllers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::controllers::{self, Plant};
use super::store::Store;
use crate::world::Shared;

/// How many passes a change may take.
const PASSES: usize = 1000;

/// One cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) world: Shared,
    store: Mutex<Store>,
    plant: Mutex<Plant>,
    changed: watch::Sender<u64>,
    wake: Notify,
    /// The API servers that run: host to token.
    pub(crate) fronts: Mutex<BTreeMap<String, CancellationToken>>,
}

/// A lock that outlives a panic elsewhere.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Cluster {
    pub(crate) fn new(world: Shared, id: &str) -> Cluster {
        let plant = Plant::new(world.clock);
        Cluster {
            world,
            store: Mutex::new(Store::new(id)),
            plant: Mutex::new(plant),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
            fronts: Mutex::new(BTreeMap::new()),
        }
    }

    /// Reads or changes the objects; watches and controllers learn of changes.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Store) -> R) -> R {
        let mut store = lock(&self.store);
        let before = store.version();
        let result = work(&mut store);
        let after = store.version();
        drop(store);
        if after != before {
            self.changed.send_replace(after);
            self.wake.notify_one();
        }
        result
    }

    /// Changes what the controllers know of the machines.
    pub(crate) fn with_plant<R>(&self, work: impl FnOnce(&mut Plant) -> R) -> R {
        let result = work(&mut lock(&self.plant));
        self.wake.notify_one();
        result
    }

    /// A receiver of resource versions.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// True while an API server runs.
    fn serving(&self) -> bool {
        !lock(&self.fronts).is_empty()
    }

    /// Runs the controllers until the token is cancelled: woken by changes and by their own timers.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = if self.serving() { self.settle().await } else { None };
            let timer = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = timer => {}
            }
        }
    }

    // Passes until nothing changes any more; the time of the next timer. Two controllers that undo one another would
    // go on for ever: that is said aloud, and the lab goes on slowly.
    async fn settle(&self) -> Option<tokio::time::Instant> {
        for _ in 0..PASSES {
            let began = tokio::time::Instant::now();
            let (changed, next) = {
                let mut plant = lock(&self.plant);
                let mut store = lock(&self.store);
                let before = store.version();
                controllers::pass(&mut store, &mut plant);
                let after = store.version();
                ((after != before).then_some(after), plant.next())
            };
            match changed {
                Some(version) => {
                    self.changed.send_replace(version);
                }
                None => return next,
            }
            // The store's lock is not fair: whoever waits for it comes in between two passes, for as long as one takes.
            tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
        }
        let last = lock(&self.store).recent(8);
        tracing::error!(?last, "the controllers do not come to rest");
        Some(tokio::time::Instant::now() + Duration::from_secs(1))
    }

    /// One object, for the lab's own eyes.
    pub(crate) fn look(&self, api_version: &str, kind: &str, ns: &str, name: &str) -> Option<Value> {
        self.with(|store| {
            let res = store.resource_of_kind(api_version, kind)?;
            store.get(&res.store(), ns, name).map(|o| (**o).clone())
        })
    }
}
