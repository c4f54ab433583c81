//! Proxmox's locks, with their real time-outs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::Clock;

/// A lock held; dropping it releases it.
#[derive(Debug)]
pub(super) enum Held {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Exclusive { _guard: OwnedRwLockWriteGuard<()> },
}

/// Waits for a guest's configuration lock: `lock_config` (pve-guest-common, AbstractConfig.pm).
pub(super) const CONFIG: Duration = Duration::from_secs(10);
/// Waits of a create before it forks.
pub(super) const CREATE: Duration = Duration::from_secs(5);
/// Waits inside create's and clone's workers (qemu-server, API2/Qemu.pm).
pub(super) const WORKER: Duration = Duration::from_secs(1);
/// Waits for a storage's lock.
pub(super) const STORAGE: Duration = Duration::from_secs(10);

/// All locks of the cluster, by name.
#[derive(Debug)]
pub(super) struct Locks {
    clock: Clock,
    table: Mutex<BTreeMap<String, Arc<RwLock<()>>>>,
}

impl Locks {
    pub fn new(clock: Clock) -> Locks {
        Locks { clock, table: Mutex::default() }
    }

    fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entry(name.to_owned()).or_default().clone()
    }

    /// Waits for a lock; `None` when the nominal time is over. A clock without latencies only queues: there,
    /// work takes no time, so a lock is never held for long.
    async fn within<T>(&self, wait: Duration, lock: impl Future<Output = T>) -> Option<T> {
        let real = self.clock.real(wait);
        if real.is_zero() { Some(lock.await) } else { tokio::time::timeout(real, lock).await.ok() }
    }

    async fn exclusive(&self, name: &str, wait: Duration) -> Option<Held> {
        let guard = self.within(wait, self.lock(name).write_owned()).await?;
        Some(Held::Exclusive { _guard: guard })
    }

    /// A guest's configuration, for writing.
    pub async fn guest(&self, kind: &str, node: &str, vmid: u32, wait: Duration) -> Result<Held, String> {
        self.exclusive(&format!("{node}/{vmid}"), wait)
            .await
            .ok_or_else(|| timed_out(&guest_file(kind, vmid)))
    }

    /// A guest's configuration, for reading beside other readers (a stopped template being cloned).
    pub async fn guest_shared(
        &self,
        kind: &str,
        node: &str,
        vmid: u32,
        wait: Duration,
    ) -> Result<Held, String> {
        let lock = self.lock(&format!("{node}/{vmid}"));
        let guard = self.within(wait, lock.read_owned()).await;
        guard.map(|guard| Held::Shared { _guard: guard }).ok_or_else(|| timed_out(&guest_file(kind, vmid)))
    }

    /// A storage: a file lock on the node where it is local, a cluster lock where it is shared.
    pub async fn storage(&self, storage: &str, node: Option<&str>) -> Result<Held, String> {
        let name = format!("{}/storage/{storage}", node.unwrap_or("cluster"));
        self.exclusive(&name, STORAGE).await.ok_or_else(|| match node {
            Some(_) => timed_out(&format!("/var/lock/pve-manager/pve-storage-{storage}")),
            None => format!("cfs-lock 'storage-{storage}' error: got lock request timeout"),
        })
    }
}

fn guest_file(kind: &str, vmid: u32) -> String {
    match kind {
        "lxc" => format!("/run/lock/lxc/pve-config-{vmid}.lock"),
        _ => format!("/var/lock/qemu-server/lock-{vmid}.conf"),
    }
}

fn timed_out(file: &str) -> String {
    format!("can't lock file '{file}' - got timeout")
}
