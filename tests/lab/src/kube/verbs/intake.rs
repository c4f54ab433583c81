//! What a body must be before anything is done with it: its schema, its place, a namespace that is open.

use serde_json::{Value, json};

use super::{Call, Validation};
use crate::kube::resources::Resource;
use crate::kube::schema::{Type, check};
use crate::kube::status::Status;
use crate::kube::store::Store;

impl Store {
    /// Checks a decoded body against the schema: wrong types are refused, unknown fields dropped or refused.
    pub(super) fn decode(
        res: &Resource,
        ty: &Type,
        object: &mut Value,
        call: &mut Call,
    ) -> Result<(), Status> {
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

    pub(super) fn place(&self, res: &Resource, ns: &str, object: &mut Value) -> Result<(), Status> {
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

    pub(super) fn open_namespace(&self, res: &Resource, ns: &str, name: &str) -> Result<(), Status> {
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
}
