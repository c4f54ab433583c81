//! `/api` and `/apis`: which resource a path means, and what is done with it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::auth::{self, Wish};
use super::cluster::Cluster;
use super::deletion::DeleteOptions;
use super::discovery;
use super::metrics;
use super::requests;
use super::resources::Resource;
use super::routes::{Answer, Asked, decode};
use super::selectors::Selector;
use super::status::Status;
use super::store::{Store, key_of};
use super::subresources;
use super::table;
use super::verbs::{Call, PatchKind, Validation, served};
use super::watch::{self, Watch};

/// Resources of a real server that the lab does not have.
const BEYOND: [&str; 10] = [
    "replicationcontrollers",
    "podtemplates",
    "componentstatuses",
    "csistoragecapacities",
    "volumeattributesclasses",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "clustertrustbundles",
    "flowschemas",
    "resourceclaims",
];

/// Where a path leads.
struct Place {
    res: Resource,
    ns: String,
    name: String,
    sub: String,
}

/// Answers a request below `/api/` or `/apis/`.
pub(crate) fn answer(
    cluster: &Arc<Cluster>,
    asked: &Asked,
    stop: CancellationToken,
) -> Result<Answer, Status> {
    let parts: Vec<String> = asked.path.trim_matches('/').split('/').map(decode).collect();
    let (group, rest) = match parts.split_first() {
        Some((first, rest)) if first == "api" => (String::new(), rest),
        _ => (parts.get(1).cloned().unwrap_or_default(), parts.get(2..).unwrap_or_default()),
    };
    let Some((version, rest)) = rest.split_first() else {
        auth::allow_path(&asked.identity, &asked.path)?;
        return cluster
            .with(|store| discovery::group(store, &group))
            .map(Answer::ok)
            .ok_or_else(Status::no_page);
    };
    if let Some(up) = cluster.with(|store| store.aggregated(&group, version)) {
        auth::allow_path(&asked.identity, &asked.path)?;
        if !up {
            return Err(Status::text(503, "service unavailable\n"));
        }
        return cluster.with(|store| metrics::answer(store, &group, rest)).map(Answer::ok);
    }
    if rest.is_empty() {
        auth::allow_path(&asked.identity, &asked.path)?;
        return cluster
            .with(|store| discovery::resources(store, &group, version))
            .map(Answer::ok)
            .ok_or_else(Status::no_page);
    }
    let place = cluster.with(|store| place(store, &group, version, rest))?;
    if let Some(answer) = stream(cluster, asked, &place, stop)? {
        return Ok(answer);
    }
    cluster.with(|store| dispatch(store, asked, &place))
}

fn place(store: &Store, group: &str, version: &str, rest: &[String]) -> Result<Place, Status> {
    let texts: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (ns, plural, name, sub) = match texts.as_slice() {
        ["namespaces", ns] if group.is_empty() => ("", "namespaces", *ns, ""),
        ["namespaces", ns, sub @ ("status" | "finalize")] if group.is_empty() => {
            ("", "namespaces", *ns, *sub)
        }
        ["namespaces", ns, plural] => (*ns, *plural, "", ""),
        ["namespaces", ns, plural, name] => (*ns, *plural, *name, ""),
        ["namespaces", ns, plural, name, sub, ..] => (*ns, *plural, *name, *sub),
        ["watch", ..] => return Err(Status::unknown_to_lab("the old watch paths")),
        [plural] => ("", *plural, "", ""),
        [plural, name] => ("", *plural, *name, ""),
        [plural, name, sub, ..] => ("", *plural, *name, *sub),
        [] => return Err(Status::no_page()),
    };
    let Some(res) = store.resource(group, version, plural) else {
        return Err(if BEYOND.contains(&plural) {
            Status::unknown_to_lab(plural)
        } else {
            Status::no_page()
        });
    };
    if res.namespaced && ns.is_empty() && !name.is_empty() {
        return Err(Status::no_page());
    }
    Ok(Place { res, ns: ns.into(), name: name.into(), sub: sub.into() })
}

fn verb(asked: &Asked, place: &Place) -> &'static str {
    match (asked.method.as_str(), place.name.is_empty()) {
        ("GET" | "HEAD", false) => "get",
        ("GET" | "HEAD", true) if asked.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "",
    }
}

fn permitted(store: &Store, asked: &Asked, place: &Place) -> Result<(), Status> {
    let verb = verb(asked, place);
    let wish = Wish { verb, res: &place.res, sub: &place.sub, ns: &place.ns, name: &place.name };
    auth::allow(store, &asked.identity, &wish)
}

fn selectors(asked: &Asked, kind: &str) -> Result<(Selector, Selector), Status> {
    let parse = |name: &str| Selector::parse(asked.param(name)).map_err(|e| Status::bad_request(&e));
    let (labels, fields) = (parse("labelSelector")?, parse("fieldSelector")?);
    fields.selectable(kind).map_err(|e| Status::bad_request(&e))?;
    Ok((labels, fields))
}

fn stream(
    cluster: &Arc<Cluster>,
    asked: &Asked,
    place: &Place,
    stop: CancellationToken,
) -> Result<Option<Answer>, Status> {
    if asked.method != Method::GET || !asked.flag("watch") || !place.sub.is_empty() {
        return Ok(None);
    }
    cluster.with(|store| permitted(store, asked, place))?;
    if place.res.ty().is_none() {
        return Err(Status::unknown_to_lab(&place.res.qualified()));
    }
    let (labels, fields) = selectors(asked, &place.res.kind)?;
    let fields = if place.name.is_empty() {
        fields
    } else {
        Selector::parse(&format!("metadata.name={}", place.name)).unwrap_or_default()
    };
    let accept = asked.accept.clone();
    let include = asked.param("includeObject").to_owned();
    let watch = Watch {
        res: place.res.clone(),
        ns: (!place.ns.is_empty()).then(|| place.ns.clone()),
        labels,
        fields,
        from: asked.param("resourceVersion").to_owned(),
        initial: asked.flag("sendInitialEvents"),
        bookmarks: asked.flag("allowWatchBookmarks"),
        timeout: asked.param("timeoutSeconds").parse().ok().map(Duration::from_secs),
        show: Box::new(move |res, object, first| table::shown(&accept, &include, res, object, first)),
    };
    Ok(Some(Answer::Stream(watch::start(cluster.clone(), watch, stop))))
}

/// The options that come in the query.
pub(crate) fn call(asked: &Asked) -> Result<Call, Status> {
    let manager = match asked.param("fieldManager") {
        "" if asked.content_type.starts_with("application/apply-patch") => String::new(),
        "" => asked.agent.split('/').next().unwrap_or_default().to_owned(),
        given => given.to_owned(),
    };
    let validation = match asked.param("fieldValidation") {
        "Strict" => Validation::Strict,
        "Ignore" => Validation::Ignore,
        "Warn" | "" => Validation::Warn,
        other => {
            let message =
                format!("Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\"");
            return Err(Status::invalid_options(
                "PatchOptions",
                "fieldValidation",
                "FieldValueNotSupported",
                &message,
            ));
        }
    };
    Ok(Call {
        user: asked.identity.name().to_owned(),
        manager,
        dry_run: asked.param("dryRun") == "All",
        force: asked.flag("force"),
        validation,
        ..Call::default()
    })
}

/// The body as a value.
pub(crate) fn body(asked: &Asked) -> Result<Value, Status> {
    if asked.content_type.contains("protobuf") {
        return Err(Status::unknown_to_lab("protobuf bodies"));
    }
    if asked.content_type.contains("cbor") {
        return Err(Status::media_type("application/json, application/yaml"));
    }
    if let Ok(value) = serde_json::from_slice(&asked.body) {
        return Ok(value);
    }
    let text = std::str::from_utf8(&asked.body).map_err(|e| Status::bad_request(&e.to_string()))?;
    if !asked.content_type.contains("yaml") {
        return Err(Status::bad_request(
            "the object provided is unrecognized (must be of type the resource of this path): couldn't get version/kind; json parse error",
        ));
    }
    serde_saphyr::from_str(text).map_err(|e| Status::bad_request(&format!("error decoding YAML: {e}")))
}

fn dispatch(store: &mut Store, asked: &Asked, place: &Place) -> Result<Answer, Status> {
    permitted(store, asked, place)?;
    let Place { res, ns, name, sub } = place;
    let verb = verb(asked, place);
    if res.ty().is_none() && res.verbs.is_empty() {
        return Err(Status::unknown_to_lab(&format!("{} {}", res.api_version(), res.plural)));
    }
    let mut call = call(asked)?;
    if !sub.is_empty() && !matches!(sub.as_str(), "status" | "approval") {
        return subresources::answer(store, asked, res, ns, name, sub, call);
    }
    if sub == "status" && !res.status || sub == "approval" && res.plural != "certificatesigningrequests" {
        return Err(Status::no_page());
    }
    if sub == "approval" {
        return requests::approval(store, asked, res, name, call);
    }
    call.sub = if sub.is_empty() { String::new() } else { "status".into() };
    if !res.has(verb) {
        return Err(Status::no_method());
    }
    let mut code = 200;
    let value = match verb {
        "get" => store.read(res, ns, name)?,
        "list" => return list(store, asked, place),
        "create" if name.is_empty() => {
            let object = body(asked)?;
            if !res.verbs.is_empty() {
                return subresources::review(store, asked, res, object);
            }
            code = 201;
            let mut object = object;
            if res.plural == "certificatesigningrequests" {
                requests::requestor(&mut object, &asked.identity)?;
            }
            store.create(res, ns, object, &mut call)?
        }
        "update" => store.update(res, ns, name, body(asked)?, &mut call)?,
        "patch" => {
            let patch = body(asked)?;
            let kind = asked.content_type.split(';').next().unwrap_or_default().trim();
            match kind {
                "application/apply-patch+yaml" => {
                    let (object, created) = store.apply(res, ns, name, patch, &mut call)?;
                    code = if created { 201 } else { 200 };
                    object
                }
                "application/json-patch+json" => {
                    store.patch(res, ns, name, PatchKind::Json, &patch, &mut call)?
                }
                "application/merge-patch+json" => {
                    store.patch(res, ns, name, PatchKind::Merge, &patch, &mut call)?
                }
                "application/strategic-merge-patch+json" => {
                    store.patch(res, ns, name, PatchKind::Strategic, &patch, &mut call)?
                }
                _ => {
                    return Err(Status::media_type(
                        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json",
                    ));
                }
            }
        }
        "delete" => store.delete(res, ns, name, &delete_options(asked, &mut call)?, &call)?,
        "deletecollection" => {
            let options = delete_options(asked, &mut call)?;
            let (labels, fields) = selectors(asked, &place.res.kind)?;
            let names: Vec<_> = store
                .list(&res.store(), (!ns.is_empty()).then_some(ns.as_str()))
                .filter(|o| labels.matches(&o["metadata"]["labels"]) && fields.matches_fields(o))
                .map(|o| key_of(o))
                .collect();
            for (ns, name) in names {
                store.delete(res, &ns, &name, &options, &call)?;
            }
            return list(store, asked, place);
        }
        _ => return Err(Status::no_method()),
    };
    let value = if value["kind"] == "Status" {
        value
    } else {
        table::shown(&asked.accept, asked.param("includeObject"), res, value, true)
    };
    Ok(Answer::Value { code, value, warnings: call.warnings, content_type: None })
}

fn delete_options(asked: &Asked, call: &mut Call) -> Result<DeleteOptions, Status> {
    let body = if asked.body.is_empty() { json!({}) } else { body(asked)? };
    let text = |v: &Value| v.as_str().map(str::to_owned);
    if body["dryRun"].as_array().is_some_and(|d| d.iter().any(|v| v == "All")) {
        call.dry_run = true;
    }
    let propagation = match asked.param("propagationPolicy") {
        "" => text(&body["propagationPolicy"]).unwrap_or_default(),
        given => given.to_owned(),
    };
    let grace =
        asked.param("gracePeriodSeconds").parse().ok().or_else(|| body["gracePeriodSeconds"].as_i64());
    Ok(DeleteOptions {
        propagation,
        grace,
        uid: text(&body["preconditions"]["uid"]),
        version: text(&body["preconditions"]["resourceVersion"]),
    })
}

fn list(store: &Store, asked: &Asked, place: &Place) -> Result<Answer, Status> {
    let res = &place.res;
    let (labels, fields) = selectors(asked, &place.res.kind)?;
    let ns = (!place.ns.is_empty()).then_some(place.ns.as_str());
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let start: Option<(String, String)> = match asked.param("continue") {
        "" => None,
        token => {
            let bad = || Status::bad_request("continue key is not valid");
            let bytes = engine.decode(token).map_err(|_| bad())?;
            let start: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
            let text = |v: &Value| v.as_str().map(str::to_owned);
            Some((text(&start["ns"]).ok_or_else(bad)?, text(&start["name"]).ok_or_else(bad)?))
        }
    };
    let mut found: Vec<&Arc<Value>> = store
        .list(&res.store(), ns)
        .filter(|o| labels.matches(&o["metadata"]["labels"]) && fields.matches_fields(o))
        .filter(|o| start.as_ref().is_none_or(|s| key_of(o) > *s))
        .collect();
    let mut meta = json!({"resourceVersion": store.version().to_string()});
    let limit: usize = asked.param("limit").parse().unwrap_or(0);
    if limit > 0 && found.len() > limit {
        let rest = found.len() - limit;
        found.truncate(limit);
        if let Some(last) = found.last() {
            let (ns, name) = key_of(last);
            meta["continue"] = engine.encode(json!({"ns": ns, "name": name}).to_string()).into();
        }
        if labels.is_empty() && fields.is_empty() {
            meta["remainingItemCount"] = rest.into();
        }
    }
    let items: Vec<Value> = found.into_iter().map(|o| served(res, o)).collect();
    Ok(Answer::ok(table::shown_list(&asked.accept, asked.param("includeObject"), res, items, meta)))
}
