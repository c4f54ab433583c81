//! kube-proxy's mode: that which the document's data plane works beside.

use addon::{Cluster, Ready};
use serde_json::{Value, json};
use stage::{Ctx, Exit, Failure, HeldKind, Waiting};

use crate::MANAGER;
use crate::api::{Api, ApiError};
use crate::build::Build;
use crate::evidence::EVIDENCE;
use crate::kernel::too_old;
use crate::step::Step;

/// kube-proxy's configuration, as kubeadm keeps it.
pub const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";
/// Where it runs.
pub const WORKLOAD: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
/// Its pods: kubeadm's manifest has no other label (`KubeProxyDaemonSet19` in phases/addons/proxy/manifests.go).
const PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=k8s-app%3Dkube-proxy";
/// The annotation of a mode that was changed: on the configuration, then on the pods that were started with it.
const CHANGED: &str = "kubeline/kube-proxy-mode";

/// The mode in the configuration; empty means iptables to kube-proxy up to 1.36.
pub fn mode_of(map: &Value) -> Option<String> {
    let text = map["data"]["config.conf"].as_str()?;
    let root = serde_saphyr::from_str::<Value>(text).ok()?;
    let mode = root["mode"].as_str().unwrap_or_default();
    Some(if mode.is_empty() { "iptables" } else { mode }.to_owned())
}

/// True when the configuration was changed and its pods were not told.
pub fn stale(map: &Value, workload: &Value) -> bool {
    let changed = &map["metadata"]["annotations"][CHANGED];
    changed.is_string() && workload["spec"]["template"]["metadata"]["annotations"][CHANGED] != *changed
}

impl Build<'_> {
    /// kube-proxy of a cluster that runs. A mode that works beside the data plane is left as it is.
    pub(crate) fn proxy(&mut self, via: &str) {
        let Some(cluster) = self.seen.cluster.as_ref().filter(|c| c.proxy.is_some()) else { return };
        let Some(runs) = &cluster.proxy_mode else { return };
        let mode = self.want.proxy_mode;
        let differs = runs != mode && (mode == "nftables" || runs == "nftables");
        let why = match cluster.proxy_stale {
            _ if differs => format!("it is {runs}; the document's data plane works beside {mode}"),
            true => "its pods have not been started anew since it was changed".to_owned(),
            false => return,
        };
        let old = self.seen.hosts.iter().filter(|(name, _)| cluster.nodes.contains_key(*name));
        let old: Vec<(String, String)> =
            old.filter_map(|(name, host)| Some((name.clone(), too_old(self.want, host)?))).collect();
        if !old.is_empty() {
            for (name, why) in old {
                let hint = "install a newer kernel, or write \"dataplane\": \"iptables\" in spec.cni";
                self.plan.hold(HeldKind::Unmet, name, why, Some(hint.to_owned()));
            }
            return;
        }
        let mode = if differs { mode.to_owned() } else { runs.clone() };
        let step = Step::Proxy { via: via.to_owned(), mode };
        let chain = self.chain.clone();
        self.chain = vec![self.plan.step_after(&chain, step, why)];
    }
}

/// Changes the mode and starts kube-proxy's pods anew, as its DaemonSet rolls; waits until they run, but for those on
/// lost nodes, which start with it when they come back.
///
/// # Errors
/// What the API refused; exit 5 when somebody changed the configuration meanwhile, or the pods do not come up.
pub async fn change(api: &Api, mode: &str, ctx: &Ctx) -> Result<(), Failure> {
    let doing = "cannot change the mode of kube-proxy";
    let map = api.get(CONFIG).await.map_err(|e| e.failure(doing))?;
    let text = map["data"]["config.conf"].as_str().unwrap_or_default();
    let mut root: Value = serde_saphyr::from_str(text)
        .map_err(|e| Failure::precondition(doing).because(format!("config.conf is no YAML: {e}")))?;
    if root["mode"] != mode {
        root["mode"] = mode.into();
        let text =
            serde_saphyr::to_string(&root).map_err(|e| Failure::internal(doing).because(e.to_string()))?;
        // With the version that was read: a change in between is refused, and not undone.
        let patch = json!({
            "metadata": { "resourceVersion": map["metadata"]["resourceVersion"], "annotations": { CHANGED: mode } },
            "data": { "config.conf": text },
        });
        api.merge(CONFIG, MANAGER, &patch).await.map_err(|e| e.failure(doing))?;
    }
    // As `kubectl rollout restart` does it, but with what changed in place of the time.
    let patch = json!({ "spec": { "template": { "metadata": { "annotations": { CHANGED: mode } } } } });
    api.merge(WORKLOAD, MANAGER, &patch).await.map_err(|e| e.failure(doing))?;
    rolled(api, mode, ctx).await.map_err(|f| {
        let failure = f.causes.iter().fold(Failure::new(f.exit, doing).because(&f.doing), Failure::because);
        failure.hint("kubectl -n kube-system rollout status daemonset kube-proxy")
    })
}

/// Waits until the pods of all nodes that are not lost run with it.
async fn rolled(api: &Api, mode: &str, ctx: &Ctx) -> Result<(), Failure> {
    let ready = Ready::DaemonSet { namespace: "kube-system".to_owned(), name: "kube-proxy".to_owned() };
    let cluster = Cluster::of(api.client(), MANAGER);
    ctx.wait_for(&ready.to_string(), EVIDENCE, || async {
        let reason = match ready.look(&cluster).await {
            Ok(Ok(())) => return Ok(Waiting::Seen(())),
            Ok(Err(reason)) => reason,
            // An API that restarts is waited for as well.
            Err(error) if addon::exit(&error) == Exit::Transient => error.to_string(),
            Err(error) => return Err(addon::failure(format!("cannot look at {ready}"), &error)),
        };
        let helped = beside_lost(api, mode).await;
        Ok(Waiting::NotYet(helped.err().map_or(reason, |error| error.to_string())))
    })
    .await
}

/// With a node lost, replaces the pods of the others, one at a time: the DaemonSet's own roll-out stands still, for
/// the pod there counts as the one that may be away (`rollingUpdate` in its controller's update.go).
async fn beside_lost(api: &Api, mode: &str) -> Result<(), ApiError> {
    let list = |object: Value| object["items"].as_array().cloned().unwrap_or_default();
    let lost = addon::lost(&list(api.get("/api/v1/nodes").await?));
    if lost.is_empty() {
        return Ok(());
    }
    let mut pods = list(api.get(PODS).await?);
    pods.retain(|pod| pod["spec"]["nodeName"].as_str().is_some_and(|node| !lost.contains_key(node)));
    let new = |pod: &Value| pod["metadata"]["annotations"][CHANGED] == mode;
    let away = |pod: &Value| pod["metadata"]["deletionTimestamp"].is_string() || new(pod) && !is_ready(pod);
    let old = pods.iter().find(|pod| !new(pod)).and_then(|pod| pod["metadata"]["name"].as_str());
    match old {
        Some(name) if !pods.iter().any(away) => {
            api.delete(&format!("/api/v1/namespaces/kube-system/pods/{name}")).await.map(drop)
        }
        _ => Ok(()),
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.any(|c| c["type"] == "Ready" && c["status"] == "True")
}
