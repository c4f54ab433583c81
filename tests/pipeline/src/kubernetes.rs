//! Nodes and pods, asked of the cluster itself.

use std::collections::BTreeMap;
use std::path::Path;

use kube_apply::Cluster;
use serde_json::Value;

use crate::table;

fn list(kubeconfig: &str, api_version: &str, kind: &str) -> Result<Vec<Value>, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let cluster =
            Cluster::connect(Path::new(kubeconfig), "pipeline-view").await.map_err(|e| e.to_string())?;
        cluster.list(api_version, kind, None, None).await.map_err(|e| e.to_string())
    })
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn condition<'v>(object: &'v Value, kind: &str) -> &'v str {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    found.and_then(|c| c["status"].as_str()).unwrap_or("Unknown")
}

/// Nodes with state, roles, version, address and taints.
pub fn nodes(kubeconfig: &str) -> Result<String, String> {
    let head = ["NAME", "STATUS", "ROLES", "VERSION", "ADDRESS", "TAINTS"].map(str::to_owned).to_vec();
    let mut rows = vec![head];
    for node in list(kubeconfig, "v1", "Node")? {
        let labels = node["metadata"]["labels"].as_object();
        let roles =
            labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/"));
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let address =
            addresses.filter(|a| a["type"] == "InternalIP").filter_map(|a| a["address"].as_str()).next();
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let taint = |t: &Value| {
            format!("{}:{}", t["key"].as_str().unwrap_or("?"), t["effect"].as_str().unwrap_or("?"))
        };
        rows.push(vec![
            name(&node),
            if condition(&node, "Ready") == "True" { "Ready".into() } else { "NotReady".into() },
            roles.collect::<Vec<_>>().join(","),
            node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or("?").to_owned(),
            address.unwrap_or("-").to_owned(),
            taints.map(taint).collect::<Vec<_>>().join(","),
        ]);
    }
    Ok(table::render(&rows))
}

/// Pods by namespace: how many there are, how many are ready, and which are not.
pub fn pods(kubeconfig: &str) -> Result<String, String> {
    let mut spaces: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for pod in list(kubeconfig, "v1", "Pod")? {
        let space = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let (count, waiting) = spaces.entry(space).or_default();
        *count += 1;
        if condition(&pod, "Ready") != "True" && pod["status"]["phase"] != "Succeeded" {
            waiting.push(name(&pod));
        }
    }
    let mut rows = vec![["NAMESPACE", "PODS", "READY", "NOT READY"].map(str::to_owned).to_vec()];
    for (space, (count, waiting)) in spaces {
        let ready = count - waiting.len();
        rows.push(vec![space, count.to_string(), ready.to_string(), waiting.join(" ")]);
    }
    Ok(table::render(&rows))
}
