//! Empties a node: its pods are evicted, and budgets are respected.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_doc::Exit;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Waiting};

use crate::MANAGER;
use crate::api::{Api, ApiError};
use crate::evidence::wait_for_api;
use crate::node::{self, CORDON};

/// How many evictions are asked for side by side.
const AT_ONCE: usize = 8;

/// How a node is emptied.
pub struct Drain<'a> {
    /// The node.
    pub node: &'a str,
    /// How long its pods may take.
    pub at_most: Duration,
    /// True when it leaves for good: it stays cordoned whatever becomes of its pods.
    pub leaves: bool,
    /// True when its kubelet runs: pods are waited for until they have ended. That of a node which leaves may end in
    /// between, or have ended long ago: after a restore the API tells for a while what was when the backup was taken.
    pub runs: bool,
}

/// A pod that has to go.
struct Pod {
    namespace: String,
    name: String,
    going: bool,
    owned: bool,
}

impl Pod {
    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }
}

/// Cordons the node and evicts its pods; what cannot be emptied is opened again, unless it leaves.
///
/// # Errors
/// Exit 4 for pods that nobody would make anew, exit 5 naming the pods that did not go in time.
pub async fn drain(api: &Api, how: &Drain<'_>, ctx: &Ctx) -> Result<(), Failure> {
    let doing = format!("cannot drain {}", how.node);
    // An API server that has just been upgraded answers on its machine before a balancer sends anybody there.
    wait_for_api(api, "the API", ctx).await?;
    let Some(node) = api.find(&path(how.node)).await.map_err(|e| e.failure(&doing))? else { return Ok(()) };
    let bare: Vec<String> = pods(api, how.node, how.runs, &doing)
        .await?
        .into_iter()
        .filter(|p| !p.owned && !p.going)
        .map(|p| format!("{}/{}", p.namespace, p.name))
        .collect();
    if !bare.is_empty() {
        let failure = Failure::precondition(&doing)
            .because(format!("nobody would make these pods anew: {}", bare.join(", ")))
            .hint(format!(
                "when they are of no worth: kubectl delete pod --namespace {}",
                bare.join(" ; ").replace('/', " ")
            ));
        return Err(failure);
    }
    if node["spec"]["unschedulable"] != true {
        let patch = json!({
            "metadata": { "annotations": { CORDON: "true" } },
            "spec": { "unschedulable": true },
        });
        api.merge(&path(how.node), MANAGER, &patch).await.map_err(|e| e.failure(&doing))?;
    }
    let evicted = evict_all(api, how, ctx, &doing).await;
    if evicted.is_err() && !how.leaves {
        // A node that could not be emptied goes on working.
        uncordon(api, how.node).await?;
    }
    evicted
}

/// Lets pods be placed on a node again that this tool cordoned.
///
/// # Errors
/// When the API refuses.
pub async fn uncordon(api: &Api, node: &str) -> Result<(), Failure> {
    let doing = format!("cannot uncordon {node}");
    let Some(seen) = api.find(&path(node)).await.map_err(|e| e.failure(&doing))? else { return Ok(()) };
    if seen["metadata"]["annotations"].get(CORDON).is_none() {
        return Ok(());
    }
    let patch = json!({ "metadata": { "annotations": { CORDON: null } }, "spec": { "unschedulable": null } });
    api.merge(&path(node), MANAGER, &patch).await.map_err(|e| e.failure(&doing))
}

fn path(node: &str) -> String {
    format!("/api/v1/nodes/{node}")
}

/// The pods that have to leave the node: all but those of DaemonSets, which come back at once, and the static ones.
async fn pods(api: &Api, node: &str, runs: bool, doing: &str) -> Result<Vec<Pod>, Failure> {
    let list = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    let list = api.get(&list).await.map_err(|e| e.failure(doing))?;
    Ok(list["items"].as_array().into_iter().flatten().filter_map(|p| pod(p, runs)).collect())
}

/// True while the node's kubelet reports that it is ready.
async fn ready(api: &Api, node: &str, doing: &str) -> Result<bool, Failure> {
    let node = api.find(&path(node)).await.map_err(|e| e.failure(doing))?;
    Ok(node.is_some_and(|n| node::read(&n).ready))
}

fn pod(object: &Value, runs: bool) -> Option<Pod> {
    let meta = &object["metadata"];
    let mirror = meta["annotations"].get("kubernetes.io/config.mirror").is_some();
    let owners = || meta["ownerReferences"].as_array().into_iter().flatten();
    let daemon = owners().any(|o| o["controller"] == true && o["kind"] == "DaemonSet");
    let over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let going = meta["deletionTimestamp"].is_string();
    // Nobody is there to end a pod on a node whose kubelet is silent: it goes along with the node.
    if mirror || daemon || (going && !runs) {
        return None;
    }
    Some(Pod {
        namespace: meta["namespace"].as_str()?.to_owned(),
        name: meta["name"].as_str()?.to_owned(),
        going,
        owned: over || owners().any(|o| o["controller"] == true),
    })
}

async fn evict_all(api: &Api, how: &Drain<'_>, ctx: &Ctx, doing: &str) -> Result<(), Failure> {
    let mut blocked: BTreeMap<String, String> = BTreeMap::new();
    let ended = {
        let blocked = std::sync::Mutex::new(&mut blocked);
        ctx.wait_for(&format!("the pods on {}", how.node), how.at_most, || async {
            let left = async {
                let runs = how.runs && (!how.leaves || ready(api, how.node, doing).await?);
                pods(api, how.node, runs, doing).await
            };
            let left = match left.await {
                Err(away) if away.exit == Exit::Transient => {
                    return Ok(Waiting::NotYet(away.causes.join(": ")));
                }
                left => left?,
            };
            let count = left.len();
            let asked = stream::iter(left).map(|pod| async move { (evict(api, &pod).await, pod) });
            let answers: Vec<(Result<(), ApiError>, Pod)> = asked.buffer_unordered(AT_ONCE).collect().await;
            let mut why = BTreeMap::new();
            for (answer, pod) in answers {
                match answer {
                    // It is asked again when there was no answer.
                    Ok(()) | Err(ApiError::Away(_)) => {}
                    // A budget; the real server says the same for one that it cannot evaluate.
                    Err(ApiError::Refused(429, text)) => {
                        why.insert(format!("{}/{}", pod.namespace, pod.name), text);
                    }
                    Err(error) => return Err(error.failure(doing)),
                }
            }
            let said = match why.iter().next() {
                Some((pod, text)) => format!("{count} are left; {pod}: {text}"),
                None => format!("{count} are left"),
            };
            if let Ok(mut blocked) = blocked.lock() {
                **blocked = why;
            }
            Ok(if count == 0 { Waiting::Seen(()) } else { Waiting::NotYet(said) })
        })
        .await
    };
    ended.map_err(|failure| {
        if blocked.is_empty() {
            return failure.hint(format!("kubectl get pods -A --field-selector spec.nodeName={}", how.node));
        }
        let pods = blocked.iter().fold(Failure::new(failure.exit, doing), |f, (pod, why)| {
            f.because(format!("{pod} may not be evicted: {why}"))
        });
        pods.hint("kubectl get poddisruptionbudgets -A; then run again, with a longer --drain-timeout if they need time")
    })
}

async fn evict(api: &Api, pod: &Pod) -> Result<(), ApiError> {
    if pod.going {
        return Ok(());
    }
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": { "name": pod.name, "namespace": pod.namespace },
    });
    match api.create(&format!("{}/eviction", pod.path()), &eviction).await {
        // Gone already.
        Err(ApiError::Refused(404, _)) => Ok(()),
        // Its namespace is going, and the pod with it (the server answers 403 then).
        Err(ApiError::Refused(403, why)) if why.contains("because it is being terminated") => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_go_goes() {
        let made = |meta: Value| json!({ "metadata": meta, "status": { "phase": "Running" } });
        let owner = |kind: &str| json!([{ "kind": kind, "controller": true }]);
        let named = |mut meta: Value| {
            meta["name"] = "p".into();
            meta["namespace"] = "n".into();
            made(meta)
        };
        assert!(pod(&named(json!({ "ownerReferences": owner("DaemonSet") })), true).is_none());
        assert!(
            pod(&named(json!({ "annotations": { "kubernetes.io/config.mirror": "x" } })), true).is_none()
        );
        assert!(
            pod(&named(json!({ "ownerReferences": owner("ReplicaSet") })), true).is_some_and(|p| p.owned)
        );
        assert!(pod(&named(json!({})), true).is_some_and(|p| !p.owned));
        let going =
            named(json!({ "deletionTimestamp": "2026-11-21T00:00:00Z", "ownerReferences": owner("Job") }));
        assert!(pod(&going, true).is_some_and(|p| p.going));
        assert!(pod(&going, false).is_none());
    }
}
