//! Deletions: preconditions, grace, finalizers.

use serde_json::Value;

use super::resources::Resource;
use super::status::Status;
use super::store::Store;
use super::verbs::{Call, now, served};

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: String,
    /// Seconds of grace; `None` for the object's own.
    pub grace: Option<i64>,
    /// Must be the uid.
    pub uid: Option<String>,
    /// Must be the resourceVersion.
    pub version: Option<String>,
}

impl Store {
    /// Deletes an object. Gives the object as long as something holds it, or a `Status`.
    pub fn delete(
        &mut self,
        res: &Resource,
        ns: &str,
        name: &str,
        options: &DeleteOptions,
        call: &Call,
    ) -> Result<Value, Status> {
        let Some(live) = self.get(&res.store(), ns, name).map(|o| served(res, o)) else {
            return Err(Status::not_found(res, name));
        };
        let uid = live["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        if let Some(wanted) = &options.uid
            && *wanted != uid
        {
            return Err(Status::precondition(res, name, "UID", wanted, &uid));
        }
        if let Some(wanted) = &options.version
            && live["metadata"]["resourceVersion"] != wanted.as_str()
        {
            let real = live["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            return Err(Status::precondition(res, name, "ResourceVersion", wanted, real));
        }
        let mut object = live.clone();
        let mut finalizers: Vec<Value> =
            object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        for (wanted, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
            if options.propagation == wanted && !finalizers.iter().any(|f| f == finalizer) {
                finalizers.push(finalizer.into());
            }
        }
        let pod = res.plural == "pods" && res.group.is_empty();
        let scheduled = pod && object["spec"].get("nodeName").is_some();
        let done = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let grace = match options.grace {
            Some(n) => n,
            None if pod => object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30),
            None => 0,
        };
        let lingers = scheduled && !done && grace > 0;
        let namespace = res.plural == "namespaces" && res.group.is_empty();
        if finalizers.is_empty() && !lingers && !namespace {
            if !call.dry_run {
                self.take(&res.store(), ns, name);
                self.after_removal(res, name);
            }
            return if pod { Ok(object) } else { Ok(Status::deleted(res, name, &uid)) };
        }
        if object["metadata"].get("deletionTimestamp").is_none() {
            object["metadata"]["deletionTimestamp"] = now().into();
            if pod {
                object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            } else if !namespace {
                object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            }
            if let Some(n) = object["metadata"].get("generation").and_then(Value::as_i64) {
                object["metadata"]["generation"] = (n + 1).into();
            }
        }
        if namespace {
            object["status"]["phase"] = "Terminating".into();
        }
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = finalizers.into();
        }
        if object == live || call.dry_run {
            return Ok(object);
        }
        let stored = self.put(&res.store(), object);
        Ok(served(res, &stored))
    }
}
