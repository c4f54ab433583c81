//! Scale, eviction, tokens, reviews and the other side doors of resources.

use serde_json::{Value, json};

use super::api::body;
use super::auth::{self, Identity, Wish};
use super::deletion::DeleteOptions;
use super::resources::Resource;
use super::routes::{Answer, Asked};
use super::selectors::Selector;
use super::status::Status;
use super::store::Store;
use super::verbs::{Call, PatchKind, served};
use super::{patch, proxy, table};

/// Answers a request for a subresource other than status.
pub(crate) fn answer(
    store: &mut Store,
    asked: &Asked,
    res: &Resource,
    ns: &str,
    name: &str,
    sub: &str,
    call: Call,
) -> Result<Answer, Status> {
    match (res.plural.as_str(), sub, asked.method.as_str()) {
        (_, "scale", _) if res.scale => scale(store, asked, res, ns, name, call),
        ("pods", "eviction", "POST") => evict(store, asked, res, ns, name, &call),
        ("pods", "binding", "POST") => {
            let node = body(asked)?["target"]["name"].clone();
            let mut call = Call { dry_run: call.dry_run, ..Call::component("kube-scheduler") };
            store.patch(res, ns, name, PatchKind::Merge, &json!({"spec": {"nodeName": node}}), &mut call)?;
            Ok(created(
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
            ))
        }
        ("serviceaccounts", "token", "POST") => token(store, asked, res, ns, name),
        ("namespaces", "finalize", "PUT") => {
            let object = body(asked)?;
            let Some(live) = store.get("namespaces", "", name).cloned() else {
                return Err(Status::not_found(res, name));
            };
            let mut wanted = (*live).clone();
            wanted["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
            Ok(Answer::ok(served(res, &store.put("namespaces", wanted))))
        }
        ("pods", "proxy", "GET") => {
            let path = asked.path.split_once("/proxy/").map_or("", |(_, path)| path);
            proxy::answer(store, asked, ns, name, path)
        }
        (
            "pods",
            "log" | "exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers" | "resize",
            _,
        )
        | ("nodes" | "services", "proxy", _) => Err(Status::unknown_to_lab(&format!("{}/{sub}", res.plural))),
        _ => Err(Status::no_page()),
    }
}

fn created(value: Value) -> Answer {
    Answer::Value { code: 201, value, warnings: Vec::new(), content_type: None }
}

fn scale(
    store: &mut Store,
    asked: &Asked,
    res: &Resource,
    ns: &str,
    name: &str,
    mut call: Call,
) -> Result<Answer, Status> {
    let pointer = |which: &str, default: &str| {
        let path = res.custom.as_ref().and_then(|c| c.scale[which].as_str()).unwrap_or(default);
        path.replace('.', "/")
    };
    let (wish, seen) =
        (pointer("specReplicasPath", ".spec.replicas"), pointer("statusReplicasPath", ".status.replicas"));
    let shown = |object: &Value| {
        let meta = &object["metadata"];
        let selector = &object["spec"]["selector"]["matchLabels"];
        let text: Vec<String> = selector
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": meta["name"],
            "namespace": meta["namespace"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"],
            "creationTimestamp": meta["creationTimestamp"]},
            "spec": {"replicas": object.pointer(&wish).unwrap_or(&json!(0))},
            "status": {"replicas": object.pointer(&seen).unwrap_or(&json!(0)), "selector": text.join(",")}})
    };
    let live = store.read(res, ns, name)?;
    let mut wanted = shown(&live);
    match asked.method.as_str() {
        "GET" => return Ok(Answer::ok(wanted)),
        "PUT" => wanted = body(asked)?,
        "PATCH" if asked.content_type.starts_with("application/json-patch") => {
            patch::json(&mut wanted, &body(asked)?).map_err(|e| Status::bad_request(&e))?;
        }
        "PATCH" => patch::merge(&mut wanted, &body(asked)?),
        _ => return Err(Status::no_method()),
    }
    let mut change = json!({});
    let last = wish.split('/').filter(|p| !p.is_empty()).fold(&mut change, |at, part| &mut at[part]);
    *last = wanted["spec"]["replicas"].clone();
    call.sub = "scale".into();
    let done = store.patch(res, ns, name, PatchKind::Merge, &change, &mut call)?;
    Ok(Answer::ok(shown(&done)))
}

fn evict(
    store: &mut Store,
    asked: &Asked,
    res: &Resource,
    ns: &str,
    name: &str,
    call: &Call,
) -> Result<Answer, Status> {
    let eviction = body(asked)?;
    let pod = store.read(res, ns, name)?;
    let running = matches!(pod["status"]["phase"].as_str(), Some("Running" | "Pending"));
    let budgets: Vec<_> = store
        .list("poddisruptionbudgets.policy", Some(ns))
        .filter(|b| Selector::of(&b["spec"]["selector"]).matches(&pod["metadata"]["labels"]))
        .cloned()
        .collect();
    let healthy = super::controllers::pods::is_ready(&pod);
    let gone = pod["metadata"].get("deletionTimestamp").is_some();
    for budget in budgets.iter().filter(|_| running && healthy && !gone) {
        let status = &budget["status"];
        if status["disruptionsAllowed"].as_i64().unwrap_or(0) <= 0 {
            let name = budget["metadata"]["name"].as_str().unwrap_or_default();
            let message = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status["desiredHealthy"].as_i64().unwrap_or(0),
                status["currentHealthy"].as_i64().unwrap_or(0)
            );
            return Err(Status::budget(message, name));
        }
    }
    let mut call = call.clone();
    call.dry_run |= eviction
        .pointer("/deleteOptions/dryRun")
        .is_some_and(|d| d.as_array().is_some_and(|l| !l.is_empty()));
    let grace = eviction.pointer("/deleteOptions/gracePeriodSeconds").and_then(Value::as_i64);
    if let (Some(budget), false) = (budgets.first(), call.dry_run || gone || !healthy) {
        // The budget counts this disruption at once, so that two evictions in a row cannot both pass.
        let mut spent = (**budget).clone();
        let left = spent["status"]["disruptionsAllowed"].as_i64().unwrap_or(1) - 1;
        let now = spent["status"]["currentHealthy"].as_i64().unwrap_or(1) - 1;
        spent["status"]["disruptionsAllowed"] = left.into();
        spent["status"]["currentHealthy"] = now.into();
        store.put("poddisruptionbudgets.policy", spent);
    }
    store.delete(res, ns, name, &DeleteOptions { grace, ..DeleteOptions::default() }, &call)?;
    Ok(created(
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
    ))
}

fn token(store: &mut Store, asked: &Asked, res: &Resource, ns: &str, name: &str) -> Result<Answer, Status> {
    let account = store.read(res, ns, name)?;
    let mut request = body(asked)?;
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
    let end = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    let end = end.replace_nanosecond(0).unwrap_or(end);
    let end = end.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["status"] = json!({"token": format!("lab.{ns}.{name}.{uid}"), "expirationTimestamp": end});
    Ok(created(request))
}

/// Answers a review, which is created and never stored.
pub(crate) fn review(
    store: &mut Store,
    asked: &Asked,
    res: &Resource,
    mut object: Value,
) -> Result<Answer, Status> {
    object["kind"] = res.kind.as_str().into();
    object["apiVersion"] = res.api_version().into();
    match res.kind.as_str() {
        "SelfSubjectReview" => {
            object["status"] =
                json!({"userInfo": {"username": asked.identity.name(), "groups": asked.identity.groups()}});
        }
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let spec = object["spec"].clone();
            let identity = if res.kind == "SelfSubjectAccessReview" {
                asked.identity.clone()
            } else {
                let groups = spec["groups"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .map(str::to_owned);
                Identity::User {
                    name: spec["user"].as_str().unwrap_or_default().into(),
                    groups: groups.collect(),
                }
            };
            let about = &spec["resourceAttributes"];
            let text = |name: &str| about[name].as_str().unwrap_or_default();
            let mut wanted = res.clone();
            wanted.group = text("group").into();
            wanted.plural = text("resource").into();
            let wish = Wish {
                verb: text("verb"),
                res: &wanted,
                sub: text("subresource"),
                ns: text("namespace"),
                name: text("name"),
            };
            let allowed = !about.is_object() || auth::allow(store, &identity, &wish).is_ok();
            object["status"] = json!({"allowed": allowed});
        }
        "SelfSubjectRulesReview" => {
            let rules = if auth::is_admin(&asked.identity) {
                json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}])
            } else {
                json!([])
            };
            object["status"] = json!({"resourceRules": rules, "nonResourceRules": [], "incomplete": false});
        }
        "TokenReview" => {
            let token = object["spec"]["token"].as_str().unwrap_or_default();
            object["status"] = match Identity::of_token(store, token) {
                Identity::User { name, groups } => {
                    json!({"authenticated": true, "user": {"username": name, "groups": groups}})
                }
                _ => json!({"authenticated": false, "error": "[invalid bearer token]"}),
            };
        }
        other => return Err(Status::unknown_to_lab(other)),
    }
    Ok(created(table::shown(&asked.accept, "", res, object, true)))
}
