//! `pods/proxy`: a request that the API server hands to a pod, as far as one program goes: agnhost's netexec and its `/dial`
//! (kubernetes/test/images/agnhost), by which pods are asked what they reach.

use serde_json::{Value, json};

use super::routes::{Answer, Asked};
use super::status::Status;
use super::store::Store;

/// Answers a GET of `pods/NAME:PORT/proxy/dial`.
pub(crate) fn answer(
    store: &Store,
    asked: &Asked,
    ns: &str,
    name: &str,
    path: &str,
) -> Result<Answer, Status> {
    let unknown = || Status::unknown_to_lab(&format!("pods/proxy {name} {path}"));
    let (name, port) = name.rsplit_once(':').ok_or_else(unknown)?;
    let pod = store.get("pods", ns, name);
    let Some(pod) = pod else {
        let pods = store.resource("", "v1", "pods").ok_or_else(Status::no_page)?;
        return Err(Status::not_found(&pods, name));
    };
    let container = &pod["spec"]["containers"][0];
    let says = |word: &str| container["args"].as_array().into_iter().flatten().any(|arg| arg == word);
    let image = container["image"].as_str().unwrap_or_default();
    if !image.contains("/agnhost:")
        || !says("netexec")
        || !says(&format!("--http-port={port}"))
        || path != "dial"
    {
        return Err(unknown());
    }
    if !serves(store, pod) {
        return Err(Status::text(503, "error trying to reach service: no route to host"));
    }
    if asked.param("protocol") != "http" || asked.param("tries") != "1" {
        return Err(unknown());
    }
    let (code, value) = dial(store, asked.param("host"), asked.param("port")).ok_or_else(unknown)?;
    // It writes JSON as text/plain.
    Ok(Answer::Value { code, value: Value::String(value), warnings: Vec::new(), content_type: None })
}

/// A pod that runs, on a node that is there.
fn serves(store: &Store, pod: &Value) -> bool {
    let node = store.get("nodes", "", pod["spec"]["nodeName"].as_str().unwrap_or_default());
    let up = |node: &Value| {
        let all = node["status"]["conditions"].as_array().into_iter().flatten();
        all.clone().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    pod["status"]["phase"] == "Running" && node.is_some_and(|node| up(node))
}

fn dial(store: &Store, host: &str, port: &str) -> Option<(u16, String)> {
    let answered = |text: &str| (200, json!({ "responses": [text] }).to_string());
    let failed = |why: String| (417, json!({ "errors": [why] }).to_string());
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        let target = store.list("pods", None).find(|pod| pod["status"]["podIP"] == host);
        return Some(match target {
            Some(target) if serves(store, target) => {
                answered(target["metadata"]["name"].as_str().unwrap_or_default())
            }
            _ => failed(format!(
                "Get \"http://{host}:{port}/hostname\": dial tcp {host}:{port}: connect: no route to host"
            )),
        });
    }
    // A Service of the API by its name, which CoreDNS knows.
    let (service, ns) = host.strip_suffix('.').unwrap_or(host).split_once('.')?;
    let ns = ns.split('.').next().unwrap_or_default();
    let dns = store
        .list("pods", None)
        .any(|pod| pod["metadata"]["labels"]["k8s-app"] == "kube-dns" && serves(store, pod));
    let known = store.get("services", ns, service).is_some();
    if !dns || !known {
        return Some((400, format!("host and/or port param are invalid. lookup {host}: no such host")));
    }
    // TLS is spoken there, and netexec speaks none.
    (service == "kubernetes").then(|| answered("Client sent an HTTP request to an HTTPS server.\n"))
}
