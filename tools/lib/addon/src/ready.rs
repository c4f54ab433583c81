//! The evidence that is waited for.

use std::collections::BTreeMap;
use std::fmt;

use kube_apply::{Cluster, Error, ObjectId, Wait};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Something that shall be ready.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "namespace and name say it")]
pub enum Ready {
    /// All pods of a Deployment are new and available, but for those on nodes that are lost.
    Deployment { namespace: String, name: String },
    /// All pods of a DaemonSet are new and available, but for those on nodes that are lost.
    DaemonSet { namespace: String, name: String },
    /// All pods of a StatefulSet are new and ready.
    StatefulSet { namespace: String, name: String },
    /// A custom resource definition is established.
    Definition { name: String },
    /// An aggregated API is available.
    Api { name: String },
    /// A condition of an object without a namespace is True.
    Condition { api_version: String, kind: String, name: String, condition: String },
    /// The Tigera operator says that a component of Calico is available, as it is wanted now.
    Tigera { name: String },
    /// cert-manager has given a webhook configuration its CA.
    Webhook { kind: String, name: String },
    /// Every node that is not lost is ready.
    Nodes,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ready::Deployment { namespace, name } => write!(f, "Deployment {namespace}/{name}"),
            Ready::DaemonSet { namespace, name } => write!(f, "DaemonSet {namespace}/{name}"),
            Ready::StatefulSet { namespace, name } => write!(f, "StatefulSet {namespace}/{name}"),
            Ready::Definition { name } => write!(f, "CustomResourceDefinition {name}"),
            Ready::Api { name } => write!(f, "APIService {name}"),
            Ready::Condition { kind, name, condition, .. } => write!(f, "{kind} {name} ({condition}=True)"),
            Ready::Tigera { name } => write!(f, "TigeraStatus {name}"),
            Ready::Webhook { kind, name } => write!(f, "the CA of {kind} {name}"),
            Ready::Nodes => f.write_str("all nodes"),
        }
    }
}

impl Ready {
    /// The evidence for a workload; none for any other object.
    pub fn of_workload(id: &ObjectId) -> Option<Ready> {
        let namespace = id.namespace.clone()?;
        let name = id.name.clone();
        match (id.api_version.as_str(), id.kind.as_str()) {
            ("apps/v1", "Deployment") => Some(Ready::Deployment { namespace, name }),
            ("apps/v1", "DaemonSet") => Some(Ready::DaemonSet { namespace, name }),
            ("apps/v1", "StatefulSet") => Some(Ready::StatefulSet { namespace, name }),
            _ => None,
        }
    }

    /// Whether it is ready now; if not, what is lacking.
    ///
    /// # Errors
    /// When the API does not answer, or refuses.
    pub async fn look(&self, cluster: &Cluster) -> Result<Result<(), String>, Error> {
        let (namespace, name) = match self {
            Ready::Nodes => return nodes_ready(cluster).await,
            Ready::Tigera { name } => return tigera(cluster, name).await,
            Ready::Webhook { kind, name } => {
                let found = cluster.get("admissionregistration.k8s.io/v1", kind, None, name).await?;
                return Ok(has_ca(found.as_ref()));
            }
            Ready::Definition { name } => {
                return cluster.ready(&Wait::CrdEstablished { name: name.clone() }).await;
            }
            Ready::Api { name } => return cluster.ready(&Wait::ApiService { name: name.clone() }).await,
            Ready::Condition { api_version, kind, name, condition } => {
                let wait = Wait::Condition {
                    api_version: api_version.clone(),
                    kind: kind.clone(),
                    namespace: None,
                    name: name.clone(),
                    condition: condition.clone(),
                    status: "True".to_owned(),
                };
                return cluster.ready(&wait).await;
            }
            Ready::Deployment { namespace, name }
            | Ready::DaemonSet { namespace, name }
            | Ready::StatefulSet { namespace, name } => (namespace.clone(), name.clone()),
        };
        let (kind, wait) = match self {
            Ready::Deployment { .. } => {
                ("Deployment", Wait::Deployment { namespace: namespace.clone(), name: name.clone() })
            }
            Ready::DaemonSet { .. } => {
                ("DaemonSet", Wait::DaemonSet { namespace: namespace.clone(), name: name.clone() })
            }
            _ => ("StatefulSet", Wait::StatefulSet { namespace: namespace.clone(), name: name.clone() }),
        };
        match cluster.ready(&wait).await? {
            Ok(()) => Ok(Ok(())),
            Err(reason) => excused(cluster, kind, (&namespace, &name), reason).await,
        }
    }
}

/// The nodes that have gone silent, each with the reason: their pods are not counted.
pub fn lost(nodes: &[Value]) -> BTreeMap<String, String> {
    let silent =
        nodes.iter().filter(|node| condition(node, "Ready").is_some_and(|c| text(c, "/status") == "Unknown"));
    silent
        .map(|node| {
            let message = condition(node, "Ready").map(|c| text(c, "/message")).unwrap_or_default();
            (text(node, "/metadata/name").to_owned(), format!("its node has gone silent: {message}"))
        })
        .collect()
}

async fn nodes_ready(cluster: &Cluster) -> Result<Result<(), String>, Error> {
    let nodes = cluster.list("v1", "Node", None, None).await?;
    let lost = lost(&nodes);
    if nodes.is_empty() {
        return Ok(Err("there is no node yet".to_owned()));
    }
    for node in nodes.iter().filter(|node| !lost.contains_key(text(node, "/metadata/name"))) {
        let name = text(node, "/metadata/name");
        match condition(node, "Ready") {
            Some(ready) if text(ready, "/status") == "True" => {}
            Some(ready) => return Ok(Err(format!("node {name}: {}", text(ready, "/message")))),
            None => return Ok(Err(format!("node {name} has not reported yet"))),
        }
        // Set by calico-node once the node's routes are there.
        if let Some(network) = condition(node, "NetworkUnavailable").filter(|c| text(c, "/status") == "True")
        {
            return Ok(Err(format!("node {name}: {}", text(network, "/message"))));
        }
    }
    Ok(Ok(()))
}

/// A workload that is not ready is ready enough when all that lacks are pods on lost nodes.
async fn excused(
    cluster: &Cluster,
    kind: &str,
    (namespace, name): (&str, &str),
    reason: String,
) -> Result<Result<(), String>, Error> {
    let lost = lost(&cluster.list("v1", "Node", None, None).await?);
    if lost.is_empty() {
        return Ok(Err(reason));
    }
    let Some(workload) = cluster.get("apps/v1", kind, Some(namespace), name).await? else {
        return Ok(Err(reason));
    };
    let labels = workload.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let pods = cluster.list("v1", "Pod", Some(namespace), Some(&selector.join(","))).await?;
    let there = pods.iter().filter(|pod| lost.contains_key(text(pod, "/spec/nodeName"))).count() as i64;
    Ok(if enough(kind, &workload, there) { Ok(()) } else { Err(reason) })
}

fn enough(kind: &str, workload: &Value, excused: i64) -> bool {
    let number = |pointer| workload.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let (wanted, updated, available) = match kind {
        "DaemonSet" => (
            number("/status/desiredNumberScheduled"),
            number("/status/updatedNumberScheduled"),
            number("/status/numberAvailable"),
        ),
        _ => {
            (number("/spec/replicas"), number("/status/updatedReplicas"), number("/status/availableReplicas"))
        }
    };
    number("/status/observedGeneration") == number("/metadata/generation")
        && updated + excused >= wanted
        && available + excused >= wanted
}

/// Available, not progressing, not degraded, and all three said of the Installation as it is now
/// (operator.tigera.io/v1 TigeraStatus conditions carry the observedGeneration).
async fn tigera(cluster: &Cluster, name: &str) -> Result<Result<(), String>, Error> {
    const API: &str = "operator.tigera.io/v1";
    let Some(status) = cluster.get(API, "TigeraStatus", None, name).await? else {
        return Ok(Err("the operator has not reported yet".to_owned()));
    };
    let installation = cluster.get(API, "Installation", None, "default").await?.unwrap_or_default();
    let generation = installation.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    // With a node lost its pods are missing for good, and the operator calls that progress; see DaemonSet for the rest.
    let degraded = condition(&status, "Degraded").map(|c| text(c, "/status"));
    if degraded == Some("False") && !lost(&cluster.list("v1", "Node", None, None).await?).is_empty() {
        return Ok(Ok(()));
    }
    for (kind, wanted) in [("Degraded", "False"), ("Progressing", "False"), ("Available", "True")] {
        let Some(found) = condition(&status, kind) else {
            return Ok(Err(format!("the operator has not said whether it is {kind}")));
        };
        let observed = found.pointer("/observedGeneration").and_then(Value::as_i64);
        if name == "calico" && observed.is_some_and(|seen| seen < generation) {
            return Ok(Err("the operator has not taken the change up yet".to_owned()));
        }
        if text(found, "/status") != wanted {
            return Ok(Err(format!("{kind} is {}: {}", text(found, "/status"), text(found, "/message"))));
        }
    }
    Ok(Ok(()))
}

fn has_ca(configuration: Option<&Value>) -> Result<(), String> {
    let Some(configuration) = configuration else { return Err("it does not exist yet".to_owned()) };
    let hooks = configuration.pointer("/webhooks").and_then(Value::as_array);
    let lacking = hooks.into_iter().flatten().find(|hook| text(hook, "/clientConfig/caBundle").is_empty());
    match lacking {
        Some(hook) => Err(format!("{} has no CA yet", text(hook, "/name"))),
        None => Ok(()),
    }
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array)?;
    all.iter().find(|one| text(one, "/type") == kind)
}

pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_on_lost_nodes_are_excused() {
        let set = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2,
            "desiredNumberScheduled": 6, "updatedNumberScheduled": 6, "numberAvailable": 5}});
        assert!(enough("DaemonSet", &set, 1));
        assert!(!enough("DaemonSet", &set, 0));
        let deployment = json!({"metadata": {"generation": 3}, "spec": {"replicas": 1},
            "status": {"observedGeneration": 3, "updatedReplicas": 1}});
        assert!(
            enough("Deployment", &deployment, 1),
            "its node is held, and waiting would not bring it back"
        );
        assert!(!enough("Deployment", &deployment, 0));
    }

    #[test]
    fn silent_nodes_are_lost() {
        let node = |name: &str, status: &str| {
            json!({"metadata": {"name": name}, "status": {"conditions": [
                {"type": "Ready", "status": status, "message": "Kubelet stopped posting node status."}]}})
        };
        let lost = lost(&[node("a", "True"), node("b", "Unknown"), node("c", "False")]);
        assert_eq!(lost.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn webhooks_need_their_ca() {
        let hook =
            |ca: &str| json!({"webhooks": [{"name": "w.example.org", "clientConfig": {"caBundle": ca}}]});
        assert!(has_ca(Some(&hook("eA=="))).is_ok());
        assert!(has_ca(Some(&hook(""))).is_err() && has_ca(None).is_err());
    }
}
