//! kube-proxy's mode: that which the document's data plane works beside.

use kube_apply::{Cluster, Wait};
use serde_json::{Value, json};
use stage::{Ctx, Failure, HeldKind};

use crate::MANAGER;
use crate::api::Api;
use crate::build::Build;
use crate::evidence::EVIDENCE;
use crate::kernel::too_old;
use crate::step::Step;

/// kube-proxy's configuration, as kubeadm keeps it.
pub const CONFIG: &str = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";
/// Where it runs.
pub const WORKLOAD: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
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

/// Changes the mode and starts kube-proxy's pods anew, as its DaemonSet rolls; waits until they run.
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
    let wait = Wait::DaemonSet { namespace: "kube-system".to_owned(), name: "kube-proxy".to_owned() };
    let cluster = Cluster::of(api.client(), MANAGER);
    let waited = cluster.wait(&wait, EVIDENCE, |reason| ctx.waiting(reason)).await;
    waited.map_err(|e| {
        Failure::of(addon::exit(&e), doing, &e, None)
            .hint("kubectl -n kube-system rollout status daemonset kube-proxy")
    })
}
