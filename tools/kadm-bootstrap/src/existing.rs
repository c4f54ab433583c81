//! An etcd that never begins a second cluster.
//!
//! kubeadm's init and upgrade write etcd's manifest without `initial-cluster-state`, which means `new`, and with the
//! member alone in `initial-cluster` (`CreateLocalEtcdStaticPodManifestFile` in its phases/etcd/local.go). While the data
//! is there etcd ignores both. Once it is gone, by a disk that was not mounted, say, such a member begins an empty
//! cluster of its own, and its API server answers behind the VIP. With `existing` it ends with an error instead.

use remote::Host;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Waiting};

use crate::api::Api;
use crate::build::Build;
use crate::evidence::{EVIDENCE, own_api, wait_for_api, wait_for_etcd};
use crate::kubeadm::with_config;
use crate::node::Node;
use crate::state::{State, States};
use crate::step::Step;
use crate::want::Want;
use crate::{MANAGER, etcd};

/// Where kubeadm stores the configuration that joins and upgrades go by.
pub const STORED: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
const STATE: &str = "initial-cluster-state";

/// True when kubeadm's stored configuration lets an etcd of its own begin a cluster.
///
/// False for what is not ours to change: an external etcd, or arguments in the form of before v1beta4.
pub fn begins_anew(configuration: &str) -> bool {
    let Ok(root) = serde_saphyr::from_str::<Value>(configuration) else { return false };
    let Some(local) = root["etcd"]["local"].as_object() else { return false };
    match local.get("extraArgs") {
        None => true,
        Some(Value::Array(args)) => {
            !args.iter().rev().any(|a| a["name"] == STATE && a["value"] == "existing")
        }
        Some(_) => false,
    }
}

/// The configuration with `initial-cluster-state=existing` among etcd's arguments.
fn with_existing(configuration: &str) -> Option<Value> {
    let mut root: Value = serde_saphyr::from_str(configuration).ok()?;
    let local = root.get_mut("etcd")?.get_mut("local")?.as_object_mut()?;
    let args = local.entry("extraArgs").or_insert_with(|| json!([])).as_array_mut()?;
    args.retain(|a| a["name"] != STATE);
    args.push(json!({ "name": STATE, "value": "existing" }));
    Some(root)
}

/// What a step says.
pub struct Existing<'a> {
    /// The version of the control plane on the machine, such as `v1.36.2`.
    pub version: &'a str,
    /// The tag of etcd's image there, which stays; `None` for the one that kubeadm has just chosen.
    pub tag: Option<&'a str>,
    /// True when kubeadm's stored configuration is to be changed.
    pub stored: bool,
    /// True when the machine's manifest is to be written anew.
    pub manifest: bool,
}

/// Changes kubeadm's configuration in the cluster and the manifest of one member, which restarts it.
///
/// This is the way of kubernetes.io's "Reconfiguring a kubeadm cluster": the ConfigMap is edited, and kubeadm's own phase
/// writes the manifest from it.
///
/// # Errors
/// What failed; the next run goes on from what it sees.
pub async fn keep(
    node: &Node,
    host: &Host,
    what: &Existing<'_>,
    api: &Api,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot keep etcd on {} from beginning another cluster", node.name);
    // With a member ill already, the restart of another one would cost the quorum.
    wait_for_etcd(host, None, ctx).await?;
    let map = api.get(STORED).await.map_err(|e| e.failure(&doing))?;
    let text = map["data"]["ClusterConfiguration"].as_str().unwrap_or_default();
    let changed = with_existing(text)
        .ok_or_else(|| Failure::precondition(&doing).because("kubeadm-config has no local etcd"))?;
    if what.stored {
        let text = yaml(&changed, &doing)?;
        // With the version that was read: a change in between is refused, and not undone.
        let patch = json!({
            "metadata": { "resourceVersion": map["metadata"]["resourceVersion"] },
            "data": { "ClusterConfiguration": text },
        });
        api.merge(STORED, MANAGER, &patch).await.map_err(|e| e.failure(&doing))?;
    }
    if !what.manifest {
        return Ok(());
    }
    let before = etcd::running(host, "etcd").await.map_err(|why| Failure::transient(&doing).because(why))?;
    let config = configuration(node, changed, what, want, &doing)?;
    with_config(host, "etcd", config, &["init", "phase", "etcd", "local"], &doing).await?;
    // Another manifest is another pod to the kubelet, with a container of its own.
    ctx.wait_for(&format!("the new etcd on {}", node.name), EVIDENCE, || async {
        Ok(match etcd::running(host, "etcd").await {
            Ok(now) if now.iter().any(|id| !before.contains(id)) => Waiting::Seen(()),
            Ok(_) => Waiting::NotYet("the kubelet has not started it yet".to_owned()),
            Err(why) => Waiting::NotYet(why),
        })
    })
    .await?;
    wait_for_etcd(host, Some(&node.name), ctx).await?;
    own_api(node, host, want, ctx).await?;
    wait_for_api(api, &format!("the API at {}", want.endpoint), ctx).await
}

/// What the phase reads: this machine, and the cluster's configuration at what runs on it.
fn configuration(
    node: &Node,
    mut cluster: Value,
    what: &Existing<'_>,
    want: &Want,
    doing: &str,
) -> Result<String, Failure> {
    cluster["kubernetesVersion"] = what.version.into();
    if let Some(tag) = what.tag {
        cluster["etcd"]["local"]["imageTag"] = tag.into();
    }
    let init = json!({
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "InitConfiguration",
        "localAPIEndpoint": { "advertiseAddress": node.address.to_string(), "bindPort": want.api_port },
        "nodeRegistration": { "name": node.name, "criSocket": etcd::SOCKET },
    });
    Ok(format!("{}---\n{}", yaml(&init, doing)?, yaml(&cluster, doing)?))
}

fn yaml(value: &Value, doing: &str) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value);
    let text = text.map_err(|e| Failure::internal(doing).because(e.to_string()))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

impl<'a> Build<'a> {
    /// The first member, once it has begun the cluster.
    pub(crate) fn begun(&mut self, first: &'a Node) {
        let step = Step::Existing {
            host: first.name.clone(),
            via: first.name.clone(),
            version: self.want.version.tag(),
            tag: None,
            stored: true,
            manifest: true,
        };
        self.existing(step);
    }

    /// Members of a cluster that runs, one by one. With an ill one among them none is restarted: `check` tells of it, and
    /// a later run does this.
    pub(crate) fn members_stay(&mut self, via: &str, states: &States<'_>) {
        let Some(cluster) = self.seen.cluster.as_ref().filter(|c| c.etcd_fault.is_none()) else { return };
        if cluster.etcd.is_empty() || cluster.etcd.iter().any(|m| m.learner || !m.healthy) {
            return;
        }
        let mut stored = cluster.begins_anew;
        let want = self.want;
        let mut planes: Vec<&Node> =
            want.control_planes().filter(|n| states.get(n.name.as_str()) == Some(&State::Done)).collect();
        planes.sort_by_key(|n| n.name != via);
        for node in planes {
            let Some(host) = self.seen.hosts.get(&node.name) else { continue };
            let manifest = host.begins_anew;
            if !manifest && !stored {
                continue;
            }
            let step = Step::Existing {
                host: node.name.clone(),
                via: via.to_owned(),
                version: host.static_pods.get("kube-apiserver").cloned().unwrap_or_default(),
                tag: host.static_pods.get("etcd").cloned(),
                stored,
                manifest,
            };
            self.existing(step);
            stored = false;
        }
    }

    fn existing(&mut self, step: Step) {
        let chain = self.chain.clone();
        let why = "without its data it would begin another cluster, and serve it";
        self.chain = vec![self.plan.step_after(&chain, step, why)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_configuration_is_read_and_changed() {
        let plain = "etcd:\n  local:\n    dataDir: /var/lib/etcd\nkubernetesVersion: v1.36.2\n";
        let changed = yaml(&with_existing(plain).unwrap(), "").unwrap();
        assert!(begins_anew(plain) && !begins_anew(&changed));
        assert!(changed.contains("dataDir: /var/lib/etcd") && changed.contains("kubernetesVersion: v1.36.2"));
        let new =
            "etcd: {local: {extraArgs: [{name: a, value: b}, {name: initial-cluster-state, value: new}]}}";
        assert!(begins_anew(new));
        let changed = with_existing(new).unwrap();
        let names: Vec<&Value> =
            changed["etcd"]["local"]["extraArgs"].as_array().unwrap().iter().map(|a| &a["name"]).collect();
        assert_eq!(names, ["a", STATE]);
        // An external etcd, and arguments as v1beta3 had them, are left alone.
        for other in ["etcd: {external: {}}", "etcd: {local: {extraArgs: {a: b}}}", "- x", ": ["] {
            assert!(!begins_anew(other) && with_existing(other).is_none(), "{other}");
        }
    }
}
