//! What clients and controllers do with objects: create, update, apply, patch, delete.

mod finish;
mod intake;

use serde_json::{Value, json};

use self::finish::strip_to_status;
use super::apply::{self, Writer};
use super::patch;
use super::resources::Resource;
use super::schema::{Type, check};
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
}

/// The object in the version of this resource.
pub fn served(res: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = res.api_version().into();
    object
}
