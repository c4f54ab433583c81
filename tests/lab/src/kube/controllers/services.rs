//! Endpoints and EndpointSlices of Services.

use serde_json::{Value, json};

use super::{MANAGER, create, going, list, names, owner, pods, text, update};
use crate::kube::selectors::Selector;
use crate::kube::store::{Store, hash};

/// One pass.
pub(crate) fn run(store: &mut Store) {
    for (ns, name) in names(store, "services") {
        let Some(service) = store.get("services", &ns, &name).cloned() else { continue };
        if going(&service) || !service["spec"]["selector"].is_object() {
            continue;
        }
        let backends = backends(store, &service);
        slice(store, &service, &backends);
        endpoints(store, &service, &backends);
    }
    for (ns, name) in names(store, "endpoints") {
        let orphan = store.get("endpoints", &ns, &name).is_some_and(|e| {
            store.get("services", &ns, &name).is_none()
                && e["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"] == "endpoint-controller"
        });
        if orphan {
            store.take("endpoints", &ns, &name);
        }
    }
}

/// The pods behind a service that have an address.
pub(crate) fn backends(store: &Store, service: &Value) -> Vec<Value> {
    let selector = Selector::of_map(&service["spec"]["selector"]);
    store
        .list("pods", Some(text(service, "/metadata/namespace")))
        .filter(|p| selector.matches(&p["metadata"]["labels"]) && p["status"].get("podIP").is_some())
        .filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed"))
        .map(|p| (**p).clone())
        .collect()
}

/// True when a service sends traffic to this pod.
pub(crate) fn serves(service: &Value, pod: &Value) -> bool {
    !going(pod) && (pods::is_ready(pod) || service["spec"]["publishNotReadyAddresses"] == true)
}

fn target(port: &Value, pod: Option<&Value>) -> Value {
    match &port["targetPort"] {
        Value::String(name) => pod
            .and_then(|p| {
                list(p, "/spec/containers")
                    .iter()
                    .flat_map(|c| list(c, "/ports"))
                    .find(|p| p["name"] == name.as_str())
            })
            .map_or(Value::Null, |p| p["containerPort"].clone()),
        other => other.clone(),
    }
}

fn ports(service: &Value, backends: &[Value]) -> Vec<Value> {
    list(service, "/spec/ports")
        .iter()
        .filter_map(|port| {
            let number = target(port, backends.first());
            number.is_number().then(|| {
                json!({"name": port.get("name").cloned().unwrap_or_else(|| "".into()), "port": number, "protocol": port["protocol"]})
            })
        })
        .collect()
}

fn reference(pod: &Value) -> Value {
    json!({"kind": "Pod", "name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"], "uid": pod["metadata"]["uid"]})
}

fn slice(store: &mut Store, service: &Value, backends: &[Value]) {
    let (ns, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
    let slice_name = format!("{name}-{}", &hash(&service["metadata"]["uid"])[..5]);
    let list: Vec<Value> = backends
        .iter()
        .map(|p| {
            let ready = serves(service, p);
            json!({"addresses": [p["status"]["podIP"]], "conditions": {"ready": ready, "serving": ready, "terminating": going(p)},
                "nodeName": p["spec"]["nodeName"], "targetRef": reference(p)})
        })
        .collect();
    let wanted = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": slice_name,
        "namespace": ns, "labels": {"kubernetes.io/service-name": name,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}, "ownerReferences": [owner(service)]},
        "addressType": "IPv4", "endpoints": list, "ports": ports(service, backends)});
    write(store, "endpointslices.discovery.k8s.io", wanted, &["endpoints", "ports"]);
}

fn endpoints(store: &mut Store, service: &Value, backends: &[Value]) {
    let (good, bad): (Vec<&Value>, Vec<&Value>) = backends.iter().partition(|p| serves(service, p));
    let addresses = |pods: &[&Value]| -> Vec<Value> {
        pods.iter()
            .map(|p| json!({"ip": p["status"]["podIP"], "nodeName": p["spec"]["nodeName"], "targetRef": reference(p)}))
            .collect()
    };
    let mut subset = json!({"ports": ports(service, backends)});
    if !good.is_empty() {
        subset["addresses"] = addresses(&good).into();
    }
    if !bad.is_empty() {
        subset["notReadyAddresses"] = addresses(&bad).into();
    }
    let subsets = if backends.is_empty() { json!([]) } else { json!([subset]) };
    let wanted = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": service["metadata"]["name"],
        "namespace": service["metadata"]["namespace"], "labels": {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}}, "subsets": subsets});
    write(store, "endpoints", wanted, &["subsets"]);
}

fn write(store: &mut Store, of: &str, wanted: Value, fields: &[&str]) {
    let (ns, name) = crate::kube::store::key_of(&wanted);
    match store.get(of, &ns, &name).map(|o| (**o).clone()) {
        None => {
            let _ = create(store, MANAGER, wanted);
        }
        Some(mut live) => {
            let same = |a: &Value, b: &Value| a == b || (is_bare(a) && is_bare(b));
            if fields.iter().any(|f| !same(&live[*f], &wanted[*f])) {
                for field in fields {
                    live[*field] = wanted[*field].clone();
                }
                update(store, MANAGER, live);
            }
        }
    }
}

fn is_bare(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
