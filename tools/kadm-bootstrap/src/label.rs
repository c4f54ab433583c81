//! Labels and taints of a node: ours as the document has them, those of others untouched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use stage::{Ctx, Failure, Waiting};

use crate::MANAGER;
use crate::api::{Api, ApiError};
use crate::node::{TAINTS, parse_taint, taint};

/// Labels by server-side apply, which drops those that were ours; taints with a note of what is ours, in one patch.
///
/// # Errors
/// What the API refused.
pub async fn mark(
    api: &Api,
    name: &str,
    labels: &BTreeMap<String, String>,
    taints: &BTreeSet<String>,
    drop_taints: &BTreeSet<String>,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let path = format!("/api/v1/nodes/{name}");
    let doing = || format!("cannot label the node {name}");
    let object =
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
    api.apply(&path, MANAGER, &object).await.map_err(|e| e.failure(doing()))?;
    let note = taints.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    ctx.wait_for(&format!("the taints of {name}"), Duration::from_secs(60), || async {
        let seen = api.get(&path).await.map_err(|e| e.failure(doing()))?;
        let patch = json!({
            "metadata": { "resourceVersion": seen["metadata"]["resourceVersion"], "annotations": { TAINTS: note } },
            "spec": { "taints": merged(&seen["spec"]["taints"], taints, drop_taints) },
        });
        match api.merge(&path, MANAGER, &patch).await {
            Ok(()) => Ok(Waiting::Seen(())),
            Err(ApiError::Refused(409, why)) => Ok(Waiting::NotYet(why)),
            Err(error) => Err(error.failure(doing())),
        }
    })
    .await
}

/// The taints that others set stay; of one key and effect there is one value.
fn merged(now: &Value, taints: &BTreeSet<String>, drop: &BTreeSet<String>) -> Vec<Value> {
    let ours: Vec<Value> = taints.iter().filter_map(|t| parse_taint(t)).collect();
    let same = |a: &Value, b: &Value| a["key"] == b["key"] && a["effect"] == b["effect"];
    let kept = now
        .as_array()
        .into_iter()
        .flatten()
        .filter(|t| !drop.contains(&taint(t)) && !ours.iter().any(|o| same(o, t)));
    let mut all: Vec<Value> = kept.cloned().collect();
    all.extend(ours);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_of_others_stay() {
        let now = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"},
            {"key": "a", "value": "old", "effect": "NoSchedule"}, {"key": "gone", "effect": "NoExecute"}]);
        let set = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<BTreeSet<_>>();
        let all = merged(&now, &set(&["a=new:NoSchedule"]), &set(&["gone:NoExecute"]));
        let all: Vec<String> = all.iter().map(taint).collect();
        assert_eq!(all, ["node.kubernetes.io/not-ready:NoSchedule", "a=new:NoSchedule"]);
    }
}
