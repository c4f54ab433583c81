//! `metrics.k8s.io`, as metrics-server answers it once it runs.

use serde_json::{Value, json};

use super::status::Status;
use super::store::Store;
use super::verbs::now;

/// Its resources for aggregated discovery.
pub(crate) fn discovered() -> Vec<Value> {
    let entry = |plural: &str, kind: &str, scope: &str| {
        json!({"resource": plural, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": scope,
            "singularResource": "", "verbs": ["get", "list"]})
    };
    vec![entry("nodes", "NodeMetrics", "Cluster"), entry("pods", "PodMetrics", "Namespaced")]
}

/// Answers a request below `/apis/metrics.k8s.io/v1beta1`; other aggregated groups are not known.
pub(crate) fn answer(store: &Store, group: &str, rest: &[String]) -> Result<Value, Status> {
    if group != "metrics.k8s.io" {
        return Err(Status::unknown_to_lab(&format!("the aggregated group {group}")));
    }
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let list = |kind: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items});
    match rest.as_slice() {
        [] => Ok(
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
            {"name": "pods", "singularName": "", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]}]}),
        ),
        ["nodes"] => Ok(list(
            "NodeMetricsList",
            store.list("nodes", None).filter(|n| ready(n)).map(|n| node(n)).collect(),
        )),
        ["nodes", name] => match store.get("nodes", "", name).filter(|n| ready(n)) {
            Some(found) => Ok(node(found)),
            None => Err(Status::fault(404, &format!("nodemetrics.metrics.k8s.io \"{name}\" not found"))),
        },
        ["pods"] => Ok(list("PodMetricsList", pods(store, None))),
        ["namespaces", ns, "pods"] => Ok(list("PodMetricsList", pods(store, Some(ns)))),
        ["namespaces", ns, "pods", name] => {
            pods(store, Some(ns)).into_iter().find(|p| p["metadata"]["name"] == *name).ok_or_else(|| {
                Status::fault(404, &format!("podmetrics.metrics.k8s.io \"{ns}/{name}\" not found"))
            })
        }
        _ => Err(Status::no_page()),
    }
}

fn ready(node: &Value) -> bool {
    super::controllers::nodes::is_ready(node)
}

fn node(node: &Value) -> Value {
    json!({"kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
        "metadata": {"name": node["metadata"]["name"], "labels": node["metadata"]["labels"], "creationTimestamp": now()},
        "timestamp": now(), "window": "20.0s", "usage": {"cpu": "120m", "memory": "1048576Ki"}})
}

fn pods(store: &Store, ns: Option<&str>) -> Vec<Value> {
    store
        .list("pods", ns)
        .filter(|p| p["status"]["phase"] == "Running")
        .map(|p| {
            let containers: Vec<Value> = p["spec"]["containers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|c| json!({"name": c["name"], "usage": {"cpu": "5m", "memory": "32768Ki"}}))
                .collect();
            json!({"kind": "PodMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
                "metadata": {"name": p["metadata"]["name"], "namespace": p["metadata"]["namespace"],
                    "labels": p["metadata"]["labels"], "creationTimestamp": now()},
                "timestamp": now(), "window": "20.0s", "containers": containers})
        })
        .collect()
}
