//! What the API says of itself: versions, groups, resources, OpenAPI.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::resources::{self, Resource};
use super::routes::{Answer, Asked};
use super::schema::{ListKind, Type};
use super::store::Store;

/// `/version`.
pub(crate) fn version(git: &str) -> Value {
    let mut parts = git.trim_start_matches('v').split('.');
    let major = parts.next().unwrap_or("1").to_owned();
    let minor = parts.next().unwrap_or("36").to_owned();
    let before = minor.parse::<u32>().map_or_else(|_| minor.clone(), |m| m.saturating_sub(1).to_string());
    json!({"major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": before, "gitVersion": git,
        "gitCommit": "0000000000000000000000000000000000000000", "gitTreeState": "clean",
        "buildDate": "2026-07-01T00:00:00Z", "goVersion": "go1.26.10", "compiler": "gc", "platform": "linux/amd64"})
}

/// `/readyz`, `/livez`, `/healthz`.
pub(crate) fn health(path: &str, verbose: bool) -> Value {
    if !verbose {
        return "ok".into();
    }
    let checks = [
        "ping",
        "log",
        "etcd",
        "informer-sync",
        "poststarthook/start-apiextensions-controllers",
        "poststarthook/crd-informer-synced",
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/apiservice-registration-controller",
        "shutdown",
    ];
    let mut text: String = checks.iter().map(|c| format!("[+]{c} ok\n")).collect();
    text.push_str(&format!("{} check passed\n", path.trim_start_matches('/')));
    text.into()
}

// Groups in order, each with its versions in order.
fn groups(store: &Store) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |group: &str, version: &str| {
        if group.is_empty() {
            return;
        }
        match all.iter_mut().find(|(g, _)| g == group) {
            Some((_, versions)) => {
                if !versions.iter().any(|v| v == version) {
                    versions.push(version.to_owned());
                }
            }
            None => all.push((group.to_owned(), vec![version.to_owned()])),
        }
    };
    for res in resources::builtin().iter().chain(&store.custom) {
        add(&res.group, &res.version);
    }
    for service in store.list("apiservices.apiregistration.k8s.io", None) {
        if service["spec"]["service"].is_object() {
            add(
                service["spec"]["group"].as_str().unwrap_or_default(),
                service["spec"]["version"].as_str().unwrap_or_default(),
            );
        }
    }
    all
}

fn group_value(group: &str, versions: &[String]) -> Value {
    let list: Vec<Value> =
        versions.iter().map(|v| json!({"groupVersion": format!("{group}/{v}"), "version": v})).collect();
    json!({"name": group, "versions": list, "preferredVersion": list.first()})
}

/// `/api` and `/apis`, plain or aggregated.
pub(crate) fn root(store: &Store, asked: &Asked) -> Answer {
    let core = asked.path.trim_end_matches('/') == "/api";
    if asked.accept.contains("APIGroupDiscoveryList") {
        let version =
            if asked.accept.contains("v=v2;") || asked.accept.contains("v=v2,") { "v2" } else { "v2beta1" };
        let items: Vec<Value> = if core {
            vec![discovered(store, "", &["v1".to_owned()])]
        } else {
            groups(store).iter().map(|(group, versions)| discovered(store, group, versions)).collect()
        };
        let value = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {}, "items": items});
        let kind = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        return Answer::Value { code: 200, value, warnings: Vec::new(), content_type: Some(kind) };
    }
    if core {
        return Answer::ok(json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}]}));
    }
    let list: Vec<Value> = groups(store).iter().map(|(g, versions)| group_value(g, versions)).collect();
    Answer::ok(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list}))
}

/// `/apis/GROUP`.
pub(crate) fn group(store: &Store, group: &str) -> Option<Value> {
    let (_, versions) = groups(store).into_iter().find(|(g, _)| g == group)?;
    let mut value = group_value(group, &versions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn of_version<'s>(store: &'s Store, group: &'s str, version: &'s str) -> Vec<&'s Resource> {
    let mut all: Vec<&Resource> =
        store.all_resources().filter(|r| r.group == group && r.version == version).collect();
    all.sort_by_key(|r| r.plural.as_str());
    all
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(crate) fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let known =
        resources::builtin().iter().chain(&store.custom).any(|r| r.group == group && r.version == version);
    if !known {
        return None;
    }
    let list: Vec<Value> =
        of_version(store, group, version).into_iter().flat_map(Resource::discovery).collect();
    let gv = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut value =
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": list});
    if group.is_empty()
        && let Some(map) = value.as_object_mut()
    {
        // The core group answers in the old form, without its own apiVersion.
        map.shift_remove("apiVersion");
    }
    Some(value)
}

fn discovered(store: &Store, group: &str, versions: &[String]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> =
                of_version(store, group, version).into_iter().map(discovered_resource).collect();
            let aggregated = store.aggregated(group, version);
            let resources = if aggregated == Some(true) { super::metrics::discovered() } else { resources };
            let freshness = if aggregated == Some(false) { "Stale" } else { "Current" };
            json!({"version": version, "resources": resources, "freshness": freshness})
        })
        .collect();
    let mut value = json!({"metadata": {"creationTimestamp": null}, "versions": list});
    if !group.is_empty() {
        value["metadata"]["name"] = group.into();
    }
    value
}

fn discovered_resource(res: &Resource) -> Value {
    let kind = |v: &Value| {
        json!({"group": v.get("group").cloned().unwrap_or_else(|| res.group.as_str().into()),
            "version": v.get("version").cloned().unwrap_or_else(|| res.version.as_str().into()), "kind": v["kind"]})
    };
    let all = res.discovery();
    let own = &all[0];
    let mut value = json!({"resource": own["name"], "responseKind": kind(own),
        "scope": if res.namespaced { "Namespaced" } else { "Cluster" }, "singularResource": own["singularName"],
        "verbs": own["verbs"]});
    for field in ["shortNames", "categories"] {
        if let Some(list) = own.get(field) {
            value[field] = list.clone();
        }
    }
    let subs: Vec<Value> = all[1..]
        .iter()
        .map(|sub| {
            let name = sub["name"].as_str().unwrap_or_default();
            json!({"subresource": name.split('/').nth(1), "responseKind": kind(sub), "verbs": sub["verbs"]})
        })
        .collect();
    if !subs.is_empty() {
        value["subresources"] = subs.into();
    }
    value
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`.
pub(crate) fn openapi_index(store: &Store) -> Value {
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for res in store.all_resources().filter(|r| r.ty().is_some()) {
        let path = path_of(&res.group, &res.version);
        let url = format!("/openapi/v3/{path}?hash={}", store.custom.len());
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` and the others: the kinds with their fields, and which verbs take which parameters.
pub(crate) fn openapi(store: &Store, wanted: &str) -> Option<Value> {
    let all: Vec<&Resource> = store
        .all_resources()
        .filter(|r| path_of(&r.group, &r.version) == wanted)
        .filter(|r| r.ty().is_some())
        .collect();
    if all.is_empty() {
        return None;
    }
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    let mut paths: BTreeMap<String, Value> = BTreeMap::new();
    for res in all {
        let gvk = json!({"group": res.group, "version": res.version, "kind": res.kind});
        let Some(ty) = res.ty() else { continue };
        let name = format!(
            "{}.{}.{}",
            if res.group.is_empty() { "core" } else { &res.group },
            res.version,
            res.kind
        );
        let mut schema = describe(&ty, &mut schemas);
        schema["x-kubernetes-group-version-kind"] = json!([gvk]);
        schemas.insert(name.clone(), schema);
        let place = if res.namespaced { "namespaces/{namespace}/" } else { "" };
        let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
        let operation = |action: &str| {
            json!({"operationId": format!("{action}{}{}", res.kind, res.version),
                "parameters": [query("dryRun"), query("fieldManager"), query("fieldValidation")],
                "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
                "responses": {"200": {"description": "OK", "content": {"application/json":
                    {"schema": {"$ref": format!("#/components/schemas/{name}")}}}}}})
        };
        let base = format!("/{wanted}/{place}{}", res.plural);
        paths.insert(base.clone(), json!({"post": operation("post"), "get": operation("list")}));
        let one = json!({"get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete")});
        paths.insert(format!("{base}/{{name}}"), one);
    }
    Some(json!({"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": store.server_version},
        "paths": paths, "components": {"schemas": schemas}}))
}

fn describe(ty: &Type, schemas: &mut BTreeMap<String, Value>) -> Value {
    match ty {
        Type::Any => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}),
        Type::Str => json!({"type": "string"}),
        Type::Int => json!({"type": "integer"}),
        Type::Num => json!({"type": "number"}),
        Type::Bool => json!({"type": "boolean"}),
        Type::IntOrStr => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Type::Named(name, _) => {
            let key = format!("lab.{name}");
            if !schemas.contains_key(&key) {
                schemas.insert(key.clone(), json!({}));
                let schema = describe(ty.resolved(), schemas);
                schemas.insert(key.clone(), schema);
            }
            json!({"allOf": [{"$ref": format!("#/components/schemas/{key}")}]})
        }
        Type::Map(of, _) => json!({"type": "object", "additionalProperties": describe(of, schemas)}),
        Type::List(of, kind) => {
            let mut list = json!({"type": "array", "items": describe(of, schemas)});
            match kind {
                ListKind::Atomic => list["x-kubernetes-list-type"] = "atomic".into(),
                ListKind::Set => {
                    list["x-kubernetes-list-type"] = "set".into();
                    list["x-kubernetes-patch-strategy"] = "merge".into();
                }
                ListKind::Keyed(keys) => {
                    let names: Vec<&String> = keys.iter().map(|(k, _)| k).collect();
                    list["x-kubernetes-list-type"] = "map".into();
                    list["x-kubernetes-list-map-keys"] = json!(names);
                    list["x-kubernetes-patch-merge-key"] = json!(names.first());
                    list["x-kubernetes-patch-strategy"] = "merge".into();
                }
            }
            list
        }
        Type::Object { fields, .. } => {
            let properties: BTreeMap<&String, Value> =
                fields.iter().map(|(name, t)| (name, describe(t, schemas))).collect();
            json!({"type": "object", "properties": properties})
        }
    }
}
