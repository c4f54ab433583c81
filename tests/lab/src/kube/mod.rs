//! The Kubernetes window: the API of simulated clusters, served at their control planes' own addresses.
//!
//! What is here is real: TLS and client certificates, discovery, the eight verbs, server-side apply with its field
//! ownership, watches, CRDs, admission that matters, and controllers enough that workloads become ready. What is not:
//! containers (a pod runs when nothing that a kubelet looks at stands in its way), quotas, webhooks that are called.
//! What a real server would know and this one does not is answered with 501 and kept as unknown in the journal.

pub mod artefacts;
pub mod deletion;
pub mod resources;
pub mod status;
pub mod store;
pub mod verbs;

mod admission;
mod allocation;
mod api;
mod apply;
mod auth;
mod bootstrap;
mod claims;
mod cluster;
mod columns;
mod controllers;
mod defaults;
mod discovery;
mod metrics;
mod patch;
mod proxy;
mod registry;
mod requests;
mod routes;
mod schema;
mod selectors;
mod server;
mod subresources;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::cluster::{Cluster, lock};
use self::deletion::DeleteOptions;
use self::verbs::{Call, served};
use crate::world::{ApiServer, Kubelet, Kubernetes, Shared};

/// The Kubernetes window of one lab.
#[derive(Clone, Debug)]
pub struct Kube {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    world: Shared,
    handle: Handle,
    clusters: Mutex<BTreeMap<String, Arc<Cluster>>>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Kube {
    /// An empty window. Its servers and controllers run on the runtime that this is called in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(world: Shared) -> Kube {
        let stop = CancellationToken::new();
        let guard = stop.clone().drop_guard();
        let inner =
            Inner { world, handle: Handle::current(), clusters: Mutex::default(), stop, _guard: guard };
        Kube { inner: Arc::new(inner) }
    }

    /// The names of the clusters that there are.
    pub fn clusters(&self) -> Vec<String> {
        lock(&self.inner.clusters).keys().cloned().collect()
    }

    /// Forgets the history of a cluster, so that watches from before are answered `410 Gone`.
    pub fn compact(&self, cluster_id: &str) {
        self.cluster(cluster_id).with(store::Store::compact);
    }

    fn cluster(&self, id: &str) -> Arc<Cluster> {
        let mut clusters = lock(&self.inner.clusters);
        if let Some(cluster) = clusters.get(id) {
            return cluster.clone();
        }
        let cluster = Arc::new(Cluster::new(self.inner.world.clone(), id));
        clusters.insert(id.to_owned(), cluster.clone());
        self.inner.handle.spawn(cluster.clone().run(self.inner.stop.child_token()));
        cluster
    }
}

impl Kubernetes for Kube {
    fn api_up(&self, server: ApiServer) {
        let cluster = self.cluster(&server.cluster_id);
        let front = match server::Front::new(&server) {
            Ok(front) => front,
            Err(error) => {
                tracing::error!(host = server.host, %error, "the API server cannot start with its certificates");
                return;
            }
        };
        cluster.with(|store| {
            if !server.version.is_empty() {
                store.server_version = server.version.clone();
            }
            if store.version() == 0 {
                store.ca = server.client_ca.clone();
                bootstrap::fill(store, &server);
            }
        });
        let stop = self.inner.stop.child_token();
        if let Some(before) = lock(&cluster.fronts).insert(server.host.clone(), stop.clone()) {
            before.cancel();
        }
        cluster.with_plant(|plant| {
            if !server.ca_key.is_empty() {
                plant.signer = Some((server.client_ca.clone(), server.ca_key.clone()));
            }
        });
        self.inner.handle.spawn(server::serve(cluster, server, front, stop));
    }

    fn api_down(&self, host: &str) {
        for cluster in lock(&self.inner.clusters).values() {
            if let Some(stop) = lock(&cluster.fronts).remove(host) {
                stop.cancel();
            }
        }
    }

    fn kubelet_up(&self, cluster_id: &str, kubelet: Kubelet) {
        let cluster = self.cluster(cluster_id);
        cluster.with_plant(|plant| plant.kubelet_up(kubelet));
    }

    fn kubelet_down(&self, cluster_id: &str, node: &str) {
        self.cluster(cluster_id).with_plant(|plant| plant.kubelet_down(node));
    }

    fn serving(&self, cluster_id: &str, node: &str) -> Option<(String, String)> {
        self.cluster(cluster_id).with_plant(|plant| {
            let machine = plant.machines.get_mut(node)?;
            let issued = machine.serving.issued.take()?;
            machine.kubelet.serves = true;
            Some(issued)
        })
    }

    fn put(&self, cluster_id: &str, object: Value) {
        let cluster = self.cluster(cluster_id);
        let written = cluster.with(|store| {
            let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
            let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
            let Some(res) = store.resource_of_kind(&version, &kind) else {
                return Err(format!("no kind {version} {kind}"));
            };
            let ns = text(&object["metadata"]["namespace"]);
            let name = text(&object["metadata"]["name"]);
            let mut call = Call { sub: "whole".into(), ..Call::component("kubeadm") };
            let done = if store.get(&res.store(), &ns, &name).is_some() {
                store.update(&res, &ns, &name, object, &mut call)
            } else {
                store.create(&res, &ns, object, &mut call)
            };
            done.map(|_| ()).map_err(|s| s.message().to_owned())
        });
        if let Err(error) = written {
            tracing::error!(error, "an object of kubeadm was refused");
        }
    }

    fn get(
        &self,
        cluster_id: &str,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Value> {
        self.cluster(cluster_id).look(api_version, kind, namespace.unwrap_or_default(), name)
    }

    fn list(&self, cluster_id: &str, api_version: &str, kind: &str) -> Vec<Value> {
        self.cluster(cluster_id).with(|store| {
            let Some(res) = store.resource_of_kind(api_version, kind) else { return Vec::new() };
            store.list(&res.store(), None).map(|o| served(&res, o)).collect()
        })
    }

    fn dump(&self, cluster_id: &str) -> String {
        self.cluster(cluster_id).with(|store| store.dump())
    }

    fn load(&self, cluster_id: &str, dump: &str) {
        let cluster = self.cluster(cluster_id);
        let nodes = cluster.with(|store| {
            store.load(dump);
            controllers::names(store, "nodes")
        });
        // They are told of as they were. Those that nobody reports for any more fall silent in time.
        cluster.with_plant(|plant| nodes.iter().for_each(|(_, name)| plant.remembered(name)));
    }

    fn delete(&self, cluster_id: &str, api_version: &str, kind: &str, namespace: Option<&str>, name: &str) {
        self.cluster(cluster_id).with(|store| {
            let Some(res) = store.resource_of_kind(api_version, kind) else { return };
            let call = Call::component("kubeadm");
            let ns = namespace.unwrap_or_default();
            // Gone already is as good.
            let _ = store.delete(&res, ns, name, &DeleteOptions::default(), &call);
        });
    }
}
