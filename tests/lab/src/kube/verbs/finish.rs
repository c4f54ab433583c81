//! Everything between a wished object and its place in the store: defaults, admission, validation, managed fields.

use serde_json::{Map, Value, json};

use super::{Call, now, served};
use crate::kube::admission;
use crate::kube::apply::{self, Managed};
use crate::kube::defaults;
use crate::kube::resources::Resource;
use crate::kube::schema::{self, Type};
use crate::kube::status::Status;
use crate::kube::store::Store;

impl Store {
    // Everything between a wished object and its place in the store. Gives the object and whether it changed.
    pub(super) fn finish(
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

pub(super) fn strip_to_status(object: &mut Value) {
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
