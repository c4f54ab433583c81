//! What clients and controllers do with objects: create, update, apply, patch, delete.

use serde_json::{Map, Value, json};

use super::admission;
use super::apply::{self, Managed, Writer};
use super::defaults;
use super::patch;
use super::resources::Resource;
use super::schema::{self, Type, check};
use super::status::Status;
use super::store::Store;

/// What becomes of unknown fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Dropped.
    Ignore,
    /// Dropped, with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Who asks, and with which options.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The user's name.
    pub user: String,
    /// The field manager.
    pub manager: String,
    /// Nothing is kept.
    pub dry_run: bool,
    /// Server-side apply takes fields from others.
    pub force: bool,
    /// Unknown fields.
    pub validation: Validation,
    /// The subresource: empty, `status` or `scale`.
    pub sub: String,
    /// What the answer warns of.
    pub warnings: Vec<String>,
    /// Written by a component of the control plane: name and namespace checks are skipped.
    pub system: bool,
}

impl Call {
    /// A call by a component of the control plane.
    pub fn component(manager: &str) -> Call {
        Call { user: format!("system:{manager}"), manager: manager.into(), system: true, ..Call::default() }
    }

    /// The same on a subresource.
    pub fn on(mut self, sub: &str) -> Call {
        self.sub = sub.into();
        self
    }
}

/// The four forms of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
}

/// The time now, as API objects say it.
pub fn now() -> String {
    let now =
        time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

const MAIN_RESET: [&str; 1] = ["f:status"];
const STATUS_RESET: [&str; 3] = ["f:spec", "f:metadata", "f:data"];

impl Store {
    fn type_of(res: &Resource) -> Result<Type, Status> {
        res.ty().ok_or_else(|| Status::unknown_to_lab(&format!("{} {}", res.api_version(), res.kind)))
    }

    /// Reads one object.
    pub fn read(&self, res: &Resource, ns: &str, name: &str) -> Result<Value, Status> {
        let object = self.get(&res.store(), ns, name).ok_or_else(|| Status::not_found(res, name))?;
        Ok(served(res, object))
    }

    /// Checks a decoded body against the schema: wrong types are refused, unknown fields dropped or refused.
    fn decode(res: &Resource, ty: &Type, object: &mut Value, call: &mut Call) -> Result<(), Status> {
        let bad = |why: &str| {
            let message = format!(
                "{} in version \"{}\" cannot be handled as a {}: {why}",
                res.kind, res.version, res.kind
            );
            Status::bad_request(&message)
        };
        if res.custom.is_none() {
            check::decode(object, ty, "").map_err(|e| bad(&e))?;
        }
        let mut unknown = Vec::new();
        check::prune(object, ty, "", &mut unknown);
        if !unknown.is_empty() {
            let texts: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
            match call.validation {
                Validation::Strict if res.custom.is_some() => {
                    return Err(Status::bad_request(&format!("strict decoding error: {}", texts.join(", "))));
                }
                Validation::Strict => {
                    return Err(bad(&format!("strict decoding error: {}", texts.join(", "))));
                }
                Validation::Warn => call.warnings.extend(texts),
                Validation::Ignore => {}
            }
        }
        if res.custom.is_none() {
            let keep = object.pointer("/status/conditions").is_some_and(Value::is_null);
            check::drop_nulls(object);
            if keep && res.plural == "customresourcedefinitions" {
                object["status"]["conditions"] = Value::Null;
            }
        }
        Ok(())
    }

    fn place(&self, res: &Resource, ns: &str, object: &mut Value) -> Result<(), Status> {
        let kind = object["kind"].as_str().unwrap_or_default();
        let version = object["apiVersion"].as_str().unwrap_or_default();
        if !kind.is_empty() && (kind != res.kind || version != res.api_version()) {
            return Err(Status::bad_request(&format!(
                "the API version in the data ({version}) does not match the expected API version ({})",
                res.api_version()
            )));
        }
        object["kind"] = res.kind.as_str().into();
        object["apiVersion"] = res.api_version().into();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let given = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        if res.namespaced {
            if !given.is_empty() && given != ns {
                return Err(Status::bad_request(&format!(
                    "the namespace of the provided object does not match the namespace sent on the request: {given} != {ns}"
                )));
            }
            object["metadata"]["namespace"] = ns.into();
        } else if let Some(meta) = object["metadata"].as_object_mut() {
            meta.shift_remove("namespace");
        }
        Ok(())
    }

    fn open_namespace(&self, res: &Resource, ns: &str, name: &str) -> Result<(), Status> {
        if !res.namespaced {
            return Ok(());
        }
        let Some(namespace) = self.get("namespaces", "", ns) else {
            let missing = self.resource("", "v1", "namespaces").ok_or_else(Status::no_page)?;
            return Err(Status::not_found(&missing, ns));
        };
        if namespace["metadata"].get("deletionTimestamp").is_some() {
            return Err(Status::terminating(res, name, ns));
        }
        Ok(())
    }

    /// Creates an object.
    pub fn create(
        &mut self,
        res: &Resource,
        ns: &str,
        mut object: Value,
        call: &mut Call,
    ) -> Result<Value, Status> {
        let ty = Store::type_of(res)?;
        self.place(res, ns, &mut object)?;
        Store::decode(res, &ty, &mut object, call)?;
        if object["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
            let Some(prefix) = object["metadata"]["generateName"].as_str().map(str::to_owned) else {
                let faults = [(
                    "metadata.name".to_owned(),
                    "FieldValueRequired",
                    "Required value: name or generateName is required".to_owned(),
                )];
                return Err(Status::invalid(res, "", &faults));
            };
            object["metadata"]["name"] = format!("{prefix}{}", self.suffix()).into();
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.open_namespace(res, ns, &name)?;
        if self.get(&res.store(), ns, &name).is_some() {
            return Err(Status::exists(res, &name));
        }
        if object["metadata"].get("resourceVersion").is_some_and(|v| v != "") {
            return Err(Status::internal(
                "resourceVersion should not be set on objects to be created".into(),
            ));
        }
        self.finish(res, &ty, None, object, None, call).map(|(v, _)| v)
    }

    /// Replaces an object, or its status.
    pub fn update(
        &mut self,
        res: &Resource,
        ns: &str,
        name: &str,
        mut object: Value,
        call: &mut Call,
    ) -> Result<Value, Status> {
        let ty = Store::type_of(res)?;
        self.place(res, ns, &mut object)?;
        let given = object["metadata"]["name"].as_str().unwrap_or_default();
        if !given.is_empty() && given != name {
            return Err(Status::bad_request(&format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        Store::decode(res, &ty, &mut object, call)?;
        object["metadata"]["name"] = name.into();
        let Some(live) = self.get(&res.store(), ns, name).map(|o| served(res, o)) else {
            return Err(Status::not_found(res, name));
        };
        self.replace(res, &ty, live, object, call)
    }

    fn replace(
        &mut self,
        res: &Resource,
        ty: &Type,
        live: Value,
        object: Value,
        call: &mut Call,
    ) -> Result<Value, Status> {
        let name = live["metadata"]["name"].as_str().unwrap_or_default();
        let wanted = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !wanted.is_empty() && wanted != live["metadata"]["resourceVersion"] {
            return Err(Status::stale(res, name));
        }
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let real = live["metadata"]["uid"].as_str().unwrap_or_default();
        if !uid.is_empty() && uid != real {
            return Err(Status::precondition(res, name, "UID", uid, real));
        }
        self.finish(res, ty, Some(live), object, None, call).map(|(v, _)| v)
    }

    /// Server-side apply. Gives the object, and true when it was created.
    pub fn apply(
        &mut self,
        res: &Resource,
        ns: &str,
        name: &str,
        mut object: Value,
        call: &mut Call,
    ) -> Result<(Value, bool), Status> {
        if call.manager.is_empty() {
            return Err(Status::invalid_options(
                "PatchOptions",
                "fieldManager",
                "FieldValueRequired",
                "Required value: is required for apply patch",
            ));
        }
        let ty = Store::type_of(res)?;
        if object.get("kind").is_none() || object.get("apiVersion").is_none() {
            return Err(Status::bad_request("error decoding patch: Object 'Kind' is missing in the patch"));
        }
        if object["metadata"]
            .get("managedFields")
            .is_some_and(|m| m.as_array().is_some_and(|l| !l.is_empty()))
        {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let live = self.get(&res.store(), ns, name).map(|o| served(res, o));
        if live.is_none() {
            self.open_namespace(res, ns, name)?;
            if !call.sub.is_empty() {
                return Err(Status::not_found(res, name));
            }
        }
        check::drop_nulls(&mut object);
        check::typed(&object, &ty, "").map_err(|e| {
            let place = format!("{}/{}", object["metadata"]["namespace"].as_str().unwrap_or_default(), name);
            Status::internal(format!(
                "failed to create typed patch object ({place}; {}, Kind={}): {e}",
                res.api_version(),
                res.kind
            ))
        })?;
        self.place(res, ns, &mut object)?;
        object["metadata"]["name"] = name.into();
        if let Some(live) = &live {
            let wanted = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            if !wanted.is_empty() && wanted != live["metadata"]["resourceVersion"] {
                return Err(Status::stale(res, name));
            }
        }
        let has_status = res.status;
        if call.sub == "status" {
            strip_to_status(&mut object);
        } else if has_status && let Some(map) = object.as_object_mut() {
            map.shift_remove("status");
        }
        let manager = call.manager.clone();
        let writer = self.writer(res, &manager, &call.sub);
        let base = live
            .clone()
            .unwrap_or_else(|| json!({"apiVersion": res.api_version(), "kind": res.kind, "metadata": {}}));
        let (merged, entries) = apply::apply(&base, &object, &ty, &writer, call.force)
            .map_err(|conflicts| Status::apply_conflict(&conflicts))?;
        let created = live.is_none();
        let (done, _) = self.finish(res, &ty, live, merged, Some(entries), call)?;
        Ok((done, created))
    }

    /// Patches an object.
    pub fn patch(
        &mut self,
        res: &Resource,
        ns: &str,
        name: &str,
        kind: PatchKind,
        body: &Value,
        call: &mut Call,
    ) -> Result<Value, Status> {
        let ty = Store::type_of(res)?;
        let Some(live) = self.get(&res.store(), ns, name).map(|o| served(res, o)) else {
            return Err(Status::not_found(res, name));
        };
        let mut object = live.clone();
        match kind {
            PatchKind::Json => patch::json(&mut object, body).map_err(|e| {
                let faults = [("patch".to_owned(), "FieldValueInvalid", format!("Invalid value: {e}"))];
                Status::invalid(res, name, &faults)
            })?,
            PatchKind::Merge => patch::merge(&mut object, body),
            PatchKind::Strategic if res.custom.is_some() => {
                return Err(Status::media_type(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            PatchKind::Strategic => patch::strategic(&mut object, body, &ty),
        }
        Store::decode(res, &ty, &mut object, call)?;
        self.replace(res, &ty, live, object, call)
    }

    fn writer<'w>(&self, res: &Resource, manager: &'w str, sub: &'w str) -> Writer<'w> {
        let reset: Vec<&'w str> = match sub {
            "status" => STATUS_RESET.to_vec(),
            _ if res.status => MAIN_RESET.to_vec(),
            _ => Vec::new(),
        };
        Writer { manager, api_version: res.api_version(), subresource: sub, now: now(), reset }
    }

    // Everything between a wished object and its place in the store. Gives the object and whether it changed.
    fn finish(
        &mut self,
        res: &Resource,
        ty: &Type,
        old: Option<Value>,
        mut new: Value,
        entries: Option<Vec<Managed>>,
        call: &mut Call,
    ) -> Result<(Value, bool), Status> {
        let name = new["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let ns = new["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        match &old {
            Some(old) => {
                if call.sub == "status" {
                    let status = new.get("status").cloned();
                    new = old.clone();
                    if let Some(map) = new.as_object_mut() {
                        match status {
                            Some(status) => map.insert("status".into(), status),
                            None => map.shift_remove("status"),
                        };
                    }
                } else if res.status {
                    keep(&mut new, old, &["status"]);
                }
                let kept = [
                    "uid",
                    "creationTimestamp",
                    "generation",
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                    "resourceVersion",
                    "generateName",
                    "selfLink",
                ];
                let meta = old["metadata"].clone();
                keep(&mut new["metadata"], &meta, &kept);
                keep(&mut new["metadata"], &meta, &["managedFields"]);
            }
            None => {
                if res.status
                    && !(call.system && call.sub == "whole")
                    && let Some(map) = new.as_object_mut()
                {
                    map.shift_remove("status");
                }
                let uid = self.uid();
                let Some(meta) = new["metadata"].as_object_mut() else {
                    return Err(Status::bad_request("no metadata"));
                };
                for field in [
                    "deletionTimestamp",
                    "deletionGracePeriodSeconds",
                    "managedFields",
                    "selfLink",
                    "generation",
                ] {
                    meta.shift_remove(field);
                }
                meta.insert("uid".into(), uid.into());
                meta.shift_remove("resourceVersion");
                meta.insert("creationTimestamp".into(), now().into());
                if res.generation {
                    meta.insert("generation".into(), 1.into());
                }
            }
        }
        tidy_meta(&mut new);
        let wished = new.clone();
        match &res.custom {
            Some(custom) => schema::crd::fill(&mut new, &custom.schema),
            None => defaults::fill(&res.group, &res.kind, &mut new),
        }
        if call.sub.is_empty() || call.sub == "whole" || call.sub == "scale" {
            admission::admit(self, res, old.as_ref(), &mut new, call)?;
        }
        if let Some(custom) = &res.custom {
            let mut faults = Vec::new();
            schema::crd::validate(&new, &custom.schema, "", &mut faults);
            if !faults.is_empty() {
                let faults: Vec<_> = faults.into_iter().map(|f| (f.field, f.reason, f.message)).collect();
                return Err(Status::invalid(res, &name, &faults));
            }
        }
        if let Some(old) = &old
            && res.generation
            && call.sub != "status"
            && content(old) != content(&new)
        {
            let next = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = next.into();
        }
        let manager = if call.manager.is_empty() { "unknown".to_owned() } else { call.manager.clone() };
        let sub = if call.sub == "whole" { "" } else { call.sub.as_str() };
        let entries = match entries {
            Some(entries) => entries,
            None => {
                let writer = self.writer(res, &manager, sub);
                let empty = json!({"apiVersion": res.api_version(), "kind": res.kind, "metadata": {}, "spec": {}, "status": {}});
                // A creation owns what was asked for, a change also what defaults made of it.
                let after = if old.is_some() { &new } else { &wished };
                apply::book(old.as_ref().unwrap_or(&empty), after, ty, &writer)
            }
        };
        apply::set_managed(&mut new, entries);
        if old.as_ref() == Some(&new) {
            return Ok((new, false));
        }
        if call.dry_run {
            return Ok((new, true));
        }
        let ends = new["metadata"].get("deletionTimestamp").is_some()
            && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && new
                .pointer("/spec/finalizers")
                .and_then(Value::as_array)
                .is_none_or(|f| f.is_empty() || res.plural != "namespaces")
            && res.plural != "pods";
        if ends {
            self.take(&res.store(), &ns, &name);
            self.after_removal(res, &name);
            return Ok((new, true));
        }
        let stored = self.put(&res.store(), new);
        self.after_write(res, &name);
        Ok((served(res, &stored), true))
    }
}

fn keep(new: &mut Value, old: &Value, names: &[&str]) {
    let Some(map) = new.as_object_mut() else { return };
    for name in names {
        match old.get(name) {
            Some(value) => map.insert((*name).into(), value.clone()),
            None => map.shift_remove(*name),
        };
    }
}

fn strip_to_status(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let ns = object["metadata"]["namespace"].clone();
    if let Some(map) = object.as_object_mut() {
        map.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "status"));
        let mut meta = Map::new();
        meta.insert("name".into(), name);
        if ns.is_string() {
            meta.insert("namespace".into(), ns);
        }
        map.insert("metadata".into(), Value::Object(meta));
    }
}

fn tidy_meta(object: &mut Value) {
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.retain(|_, v| match v {
            Value::Null => false,
            Value::Object(m) => !m.is_empty(),
            Value::Array(l) => !l.is_empty(),
            Value::String(s) => !s.is_empty(),
            _ => true,
        });
    }
}

// What `metadata.generation` counts: all but metadata and status.
fn content(object: &Value) -> Vec<(&String, &Value)> {
    let mut all: Vec<_> = object
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
        .collect();
    all.sort_by_key(|(k, _)| k.as_str());
    all
}

/// The object in the version of this resource.
pub fn served(res: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = res.api_version().into();
    object
}
