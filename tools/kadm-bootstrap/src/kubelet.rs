//! The configuration of the kubelets: the cluster's copy, each node's own, and how a change reaches them.
//!
//! kubeadm's way for a cluster that runs (kubernetes.io, "Reconfiguring a kubeadm cluster"): the ConfigMap kubelet-config is
//! changed, then `kubeadm upgrade node phase kubelet-config` writes it on each node, whose kubelet is restarted. Running
//! pods go on. One node at a time: a kubelet that does not come up with it is the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use remote::{Command, Host, RemoteFile};
use serde_json::{Map, Value, json};
use stage::{Ctx, Failure, Waiting};

use crate::api::Api;
use crate::build::Build;
use crate::evidence::EVIDENCE;
use crate::fields::{differing, read, wanted};
use crate::hosts::{self, must};
use crate::state::{State, States};
use crate::step::Step;
use crate::want::Want;
use crate::{MANAGER, kubeadm, node, serving};

/// The cluster's copy, which kubeadm writes on machines that join or are upgraded.
pub const STORED: &str = "/api/v1/namespaces/kube-system/configmaps/kubelet-config";
/// Which of its fields are the document's: a text has no owner for each.
pub const NOTED: &str = "/api/v1/namespaces/kube-system/configmaps/kubeline-kubelet";
/// A node's own.
pub const CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// Where a change is noted on a machine while it goes on.
pub const CONFIGURING: &str = "/var/lib/kubeline/kadm-kubelet";

/// Restarts the kubelet, and tells the moment at which neither the old nor the new one ran.
///
/// * No arguments. Standard output: that moment as the API writes times with microseconds. As one script it is seen
///   through by the machine when the connection is lost. Exit: 0, else systemctl's.
pub const RESTART: &str = r#"# kubeline: kadm-restart v1
set -eu
systemctl stop kubelet
date -u +%Y-%m-%dT%H:%M:%S.%6NZ
systemctl start kubelet
"#;

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Why fields are due.
fn why(differ: &BTreeSet<String>, dropped: &BTreeSet<String>) -> String {
    let verb = if differ.len() == 1 { "differs" } else { "differ" };
    match (differ.is_empty(), dropped.is_empty()) {
        (false, true) => format!("{} {verb}", list(differ)),
        (true, false) => format!("the document dropped {}", list(dropped)),
        _ => format!("{} {verb}; the document dropped {}", list(differ), list(dropped)),
    }
}

impl Build<'_> {
    /// The note that goes with a cluster that this plan makes: its kubelets have the fields from the first moment.
    pub(crate) fn kubelet_note(&mut self, via: &str) {
        let names: BTreeSet<String> = self.want.kubelet.keys().cloned().collect();
        if !names.is_empty() {
            let chain = self.chain.clone();
            let step = Step::KubeletNote { via: via.to_owned(), fields: names };
            self.plan.step_after(&chain, step, "what the document drops later is to go");
        }
    }

    /// Brings the kubelets of a cluster that runs to the document's configuration.
    pub(crate) fn kubelets(&mut self, via: &str, states: &States<'_>) {
        let Some(cluster) = self.seen.cluster.as_ref().filter(|c| c.missing.is_empty()) else { return };
        let Some(stored) = &cluster.kubelet else { return };
        let wanted = wanted(self.want);
        let names: BTreeSet<String> = self.want.kubelet.keys().cloned().collect();
        let dropped: BTreeSet<String> =
            cluster.kubelet_noted.iter().filter(|n| !wanted.contains_key(*n)).cloned().collect();
        let still = |there: &BTreeMap<String, Value>| -> BTreeSet<String> {
            dropped.iter().filter(|name| there.contains_key(*name)).cloned().collect()
        };
        let (differ, gone) = (differing(&wanted, stored), still(stored));
        let mut note_due = !names.is_subset(&cluster.kubelet_noted);
        if !differ.is_empty() || !gone.is_empty() {
            note_due = false;
            let set = wanted.iter().filter(|(n, _)| differ.contains(*n));
            let step = Step::KubeletConfig {
                via: via.to_owned(),
                fields: set.map(|(name, value)| (name.clone(), value.clone())).collect(),
                drop: gone.clone(),
                noted: names.union(&dropped).cloned().collect(),
            };
            self.in_turn(step, why(&differ, &gone));
        }
        let mut planes_first: Vec<_> = self.want.nodes.iter().collect();
        planes_first.sort_by_key(|n| (!n.control_plane, n.name != via));
        let mut all = true;
        for node in planes_first {
            let host = self.seen.hosts.get(&node.name);
            let registered = cluster.nodes.get(&node.name);
            let (Some(host), Some(registered), Some(State::Done)) =
                (host, registered, states.get(node.name.as_str()))
            else {
                all &= registered.is_none();
                continue;
            };
            let (differ, gone) = (differing(&wanted, &host.kubelet), still(&host.kubelet));
            let why = match host.configuring {
                true => "its change was not seen through".to_owned(),
                false if differ.is_empty() && gone.is_empty() => continue,
                false => why(&differ, &gone),
            };
            let step = Step::Configure {
                host: node.name.clone(),
                via: via.to_owned(),
                drop: dropped.clone(),
                ready: registered.ready,
            };
            self.in_turn(step, why);
        }
        // As long as one that does not answer may have such a field, it is remembered.
        let forget = !dropped.is_empty() && all;
        if forget || note_due {
            let fields = if all { names } else { names.union(&dropped).cloned().collect() };
            let why = if forget { "no kubelet has the others any more" } else { "it is not yet noted" };
            let step = Step::KubeletNote { via: via.to_owned(), fields };
            self.in_turn(step, why.to_owned());
        }
    }

    fn in_turn(&mut self, step: Step, why: String) {
        let chain = self.chain.clone();
        self.chain = vec![self.plan.step_after(&chain, step, why)];
    }
}

/// Notes which fields are the document's.
///
/// # Errors
/// What the API refused.
pub async fn note(api: &Api, fields: &BTreeSet<String>) -> Result<(), Failure> {
    let names = fields.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "kubeline-kubelet", "namespace": "kube-system" },
        "data": { "fields": names },
    });
    let noted = api.apply(NOTED, MANAGER, &object).await;
    noted.map_err(|e| e.failure("cannot note which fields of the kubelets' configuration are the document's"))
}

/// Changes the cluster's copy.
///
/// # Errors
/// What the API refused; exit 5 when somebody changed it meanwhile.
pub async fn store(
    api: &Api,
    set: &BTreeMap<String, Value>,
    drop: &BTreeSet<String>,
    noted: &BTreeSet<String>,
) -> Result<(), Failure> {
    let doing = "cannot change the kubelets' configuration in the cluster";
    // Before the change: a run that is killed in between has to know what to drop.
    note(api, noted).await?;
    let map = api.get(STORED).await.map_err(|e| e.failure(doing))?;
    let text = map["data"]["kubelet"].as_str().unwrap_or_default();
    let mut root: Map<String, Value> = serde_saphyr::from_str(text)
        .map_err(|e| Failure::precondition(doing).because(format!("kubelet-config is no YAML: {e}")))?;
    root.retain(|name, _| !drop.contains(name));
    root.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
    let text = serde_saphyr::to_string(&root).map_err(|e| Failure::internal(doing).because(e.to_string()))?;
    // With the version that was read: a change in between is refused, and not undone.
    let patch = json!({
        "metadata": { "resourceVersion": map["metadata"]["resourceVersion"] },
        "data": { "kubelet": text },
    });
    api.merge(STORED, MANAGER, &patch).await.map_err(|e| e.failure(doing))
}

/// Brings one node's kubelet to the cluster's copy, and proves that it came back with it.
///
/// # Errors
/// kubeadm's complaints; exit 4 when kubeadm left a field out; exit 5 when the kubelet does not come back.
pub async fn configure(
    host: &Host,
    drop: &BTreeSet<String>,
    ready: bool,
    api: &Api,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let node = host.name();
    let doing = format!("cannot configure the kubelet on {node}");
    let mark = "a change of the kubelet's configuration began here\n";
    hosts::put(host, &RemoteFile::new(CONFIGURING, mark), &doing).await?;
    let phase = Command::new("kubeadm").args(["upgrade", "node", "phase", "kubelet-config"]);
    kubeadm::run(host, &phase.sudo().timeout(kubeadm::PATIENCE), &doing).await?;
    let there = host.read(CONFIG).await.map_err(|e| fleet::failure(&doing, &e))?.unwrap_or_default();
    let there = read(&String::from_utf8_lossy(&there));
    let differ = differing(&wanted(want), &there);
    if !differ.is_empty() {
        let why = format!("kubeadm left out or wrote otherwise: {}", list(&differ));
        let hint = format!(
            "look whether it is a field of KubeletConfiguration in {} and not the kubelet's own default; if not, take it \
             out of spec.kubernetes.kubelet",
            want.version.tag()
        );
        return Err(Failure::precondition(&doing).because(why).hint(hint));
    }
    if let Some(name) = drop.iter().find(|name| there.contains_key(*name)) {
        return Err(Failure::transient(&doing).because(format!("kubeadm wrote {name}, which was to go")));
    }
    restart(host, ready, api, &doing, ctx).await?;
    serving::first(api, host, want, ctx).await?;
    host.remove(CONFIGURING).await.map(std::mem::drop).map_err(|e| fleet::failure(doing, &e))
}

/// Restarts a kubelet, and waits until it has reported since.
///
/// # Errors
/// systemctl's complaint, or exit 5 when it does not come back.
pub(crate) async fn restart(
    host: &Host,
    ready: bool,
    api: &Api,
    doing: &str,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let node = host.name();
    let restart = Command::sh(RESTART).sudo().title("restart the kubelet").timeout(Duration::from_secs(180));
    let stopped = must(host, &restart, doing).await?.text().trim().to_owned();
    let came_back = back(node, &stopped, ready, api, ctx).await;
    came_back.map_err(|f| f.hint(format!("on {node}: journalctl -u kubelet -n 50")))
}

/// Waits until the kubelet that was started after that moment has renewed its lease, and its node is as it was.
async fn back(node: &str, stopped: &str, ready: bool, api: &Api, ctx: &Ctx) -> Result<(), Failure> {
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
    let path = format!("/api/v1/nodes/{node}");
    ctx.wait_for(&format!("the kubelet on {node}"), EVIDENCE, || async {
        let (lease, node) = futures::join!(api.find(&lease), api.get(&path));
        let (lease, node) = match (lease, node) {
            (Ok(lease), Ok(node)) => (lease.unwrap_or_default(), node::read(&node)),
            (Err(error), _) | (_, Err(error)) => return Ok(Waiting::NotYet(error.to_string())),
        };
        Ok(match lease["spec"]["renewTime"].as_str() {
            // Both are in UTC with six digits after the second (MicroTime), so that their order is that of their letters.
            Some(renewed) if renewed > stopped => match ready && !node.ready {
                true => Waiting::NotYet(node.reason),
                false => Waiting::Seen(()),
            },
            _ => Waiting::NotYet("it has not reported since it was restarted".to_owned()),
        })
    })
    .await
}
