//! `metav1.Status`: refusals in the words of a real API server.

use serde_json::{Value, json};

use super::resources::Resource;

/// A refusal, or rarely a success that is not an object.
#[derive(Clone, Debug)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
    /// The body: a `Status` object, or a text.
    pub body: Value,
}

impl Status {
    fn failure(code: u16, reason: &str, message: String, details: Value) -> Status {
        let mut body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message});
        if !reason.is_empty() {
            body["reason"] = reason.into();
        }
        if !details.is_null() {
            body["details"] = details;
        }
        body["code"] = code.into();
        Status { code, body }
    }

    fn details(res: &Resource, name: &str) -> Value {
        let mut details = json!({});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !res.group.is_empty() {
            details["group"] = res.group.as_str().into();
        }
        details["kind"] = res.plural.as_str().into();
        details
    }

    /// The message of a failure.
    pub fn message(&self) -> &str {
        self.body.get("message").and_then(Value::as_str).unwrap_or_default()
    }

    /// A path that no server knows.
    pub fn no_page() -> Status {
        Status { code: 404, body: "404 page not found\n".into() }
    }

    /// A text with a status.
    pub fn text(code: u16, text: &str) -> Status {
        Status { code, body: text.into() }
    }

    /// No such object.
    pub fn not_found(res: &Resource, name: &str) -> Status {
        let message = format!("{} \"{name}\" not found", res.qualified());
        Status::failure(404, "NotFound", message, Status::details(res, name))
    }

    /// An object of this name is there already.
    pub fn exists(res: &Resource, name: &str) -> Status {
        let message = format!("{} \"{name}\" already exists", res.qualified());
        Status::failure(409, "AlreadyExists", message, Status::details(res, name))
    }

    /// The resourceVersion given is not the object's.
    pub fn stale(res: &Resource, name: &str) -> Status {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
            res.qualified()
        );
        Status::failure(409, "Conflict", message, Status::details(res, name))
    }

    /// A precondition of a deletion does not hold.
    pub fn precondition(res: &Resource, name: &str, what: &str, wanted: &str, got: &str) -> Status {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {got}",
            res.qualified()
        );
        Status::failure(409, "Conflict", message, Status::details(res, name))
    }

    /// Fields that another manager owns: `(manager, field)`.
    pub fn apply_conflict(conflicts: &[(String, String)]) -> Status {
        let n = conflicts.len();
        let causes: Vec<Value> = conflicts
            .iter()
            .map(|(m, f)| json!({"reason": "FieldManagerConflict", "message": format!("conflict with {m}"), "field": f}))
            .collect();
        let message = if let [(manager, field)] = conflicts {
            format!("Apply failed with 1 conflict: conflict with {manager}: {field}")
        } else {
            let mut by: Vec<(String, Vec<String>)> = Vec::new();
            for (manager, field) in conflicts {
                match by.iter_mut().find(|(m, _)| m == manager) {
                    Some((_, fields)) => fields.push(field.clone()),
                    None => by.push((manager.clone(), vec![field.clone()])),
                }
            }
            let parts: Vec<String> = by
                .iter()
                .map(|(m, fields)| match fields.as_slice() {
                    [one] => format!("conflict with {m}: {one}"),
                    many => format!("conflicts with {m}:\n- {}", many.join("\n- ")),
                })
                .collect();
            format!("Apply failed with {n} conflicts: {}", parts.join("\n"))
        };
        Status::failure(409, "Conflict", message, json!({"causes": causes}))
    }

    /// Fields that may not be so: `(field, reason, message)`.
    pub fn invalid(res: &Resource, name: &str, faults: &[(String, &str, String)]) -> Status {
        let mut details = json!({});
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !res.group.is_empty() {
            details["group"] = res.group.as_str().into();
        }
        details["kind"] = res.kind.as_str().into();
        let causes: Vec<Value> = faults
            .iter()
            .map(|(field, reason, message)| json!({"reason": reason, "message": message, "field": field}))
            .collect();
        details["causes"] = causes.into();
        let parts: Vec<String> =
            faults.iter().map(|(field, _, message)| format!("{field}: {message}")).collect();
        let text = match parts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind =
            if res.group.is_empty() { res.kind.clone() } else { format!("{}.{}", res.kind, res.group) };
        Status::failure(422, "Invalid", format!("{kind} \"{name}\" is invalid: {text}"), details)
    }

    /// Options that may not be so.
    pub fn invalid_options(kind: &str, field: &str, reason: &str, message: &str) -> Status {
        let causes = json!([{"reason": reason, "message": message, "field": field}]);
        Status::failure(
            422,
            "Invalid",
            format!("{kind}.meta.k8s.io \"\" is invalid: {field}: {message}"),
            json!({"group": "meta.k8s.io", "kind": kind, "causes": causes}),
        )
    }

    /// Refused by an admission plug-in.
    pub fn forbidden(res: &Resource, name: &str, why: &str) -> Status {
        let message = format!("{} \"{name}\" is forbidden: {why}", res.qualified());
        Status::failure(403, "Forbidden", message, Status::details(res, name))
    }

    /// A namespace that is being deleted takes nothing new.
    pub fn terminating(res: &Resource, name: &str, ns: &str) -> Status {
        let mut details = Status::details(res, name);
        details["causes"] = json!([{"reason": "NamespaceTerminating",
            "message": format!("namespace {ns} is being terminated"), "field": "metadata.namespace"}]);
        let message = format!(
            "{} \"{name}\" is forbidden: unable to create new content in namespace {ns} because it is being terminated",
            res.qualified()
        );
        Status::failure(403, "Forbidden", message, details)
    }

    /// The user may not do this.
    pub fn denied(user: &str, verb: &str, res: &Resource, sub: &str, ns: &str, name: &str) -> Status {
        let plural = if sub.is_empty() { res.plural.clone() } else { format!("{}/{sub}", res.plural) };
        let subject = if res.group.is_empty() { plural.clone() } else { format!("{}.{}", plural, res.group) };
        let subject = if name.is_empty() { subject } else { format!("{subject} \"{name}\"") };
        let scope = if ns.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{ns}\"")
        };
        let message = format!(
            "{subject} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}\" in API group \"{}\" {scope}",
            res.group
        );
        Status::failure(403, "Forbidden", message, Status::details(res, name))
    }

    /// The user may not read this path.
    pub fn denied_path(user: &str, verb: &str, path: &str) -> Status {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        Status::failure(403, "Forbidden", message, json!({}))
    }

    /// Credentials that are no good.
    pub fn unauthorized() -> Status {
        Status::failure(401, "Unauthorized", "Unauthorized".into(), Value::Null)
    }

    /// A body or a parameter that cannot be read.
    pub fn bad_request(message: &str) -> Status {
        Status::failure(400, "BadRequest", message.into(), Value::Null)
    }

    /// A failure without a reason, such as that of a typed patch.
    pub fn internal(message: String) -> Status {
        Status::failure(500, "", message, Value::Null)
    }

    /// A content type that patches do not have.
    pub fn media_type(allowed: &str) -> Status {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {allowed}"
        );
        Status::failure(415, "UnsupportedMediaType", message, json!({}))
    }

    /// The verb is not there for this resource.
    pub fn no_method() -> Status {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Status::failure(405, "MethodNotAllowed", message, json!({}))
    }

    /// The history that a watch asks for is gone.
    pub fn gone(asked: u64, oldest: u64) -> Status {
        Status::failure(410, "Expired", format!("too old resource version: {asked} ({oldest})"), Value::Null)
    }

    /// A disruption budget holds an eviction back.
    pub fn budget(message: String, budget: &str) -> Status {
        let details = json!({"causes": [{"reason": "DisruptionBudget", "message": message}], "name": budget});
        let text = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
        Status::failure(429, "TooManyRequests", text, details)
    }

    /// What a real server would know and this one does not.
    pub fn unknown_to_lab(what: &str) -> Status {
        Status::failure(501, "NotImplemented", format!("the lab does not know {what}"), Value::Null)
    }

    /// The lab has no OpenAPI v2; clients fall back to v3.
    pub fn unknown_to_openapi() -> Status {
        Status::text(404, "404 page not found\n")
    }

    /// An injected fault.
    pub fn fault(code: u16, text: &str) -> Status {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Status::failure(code, reason, text.into(), Value::Null)
    }

    /// Something was deleted for good.
    pub fn deleted(res: &Resource, name: &str, uid: &str) -> Value {
        let mut details = Status::details(res, name);
        details["uid"] = uid.into();
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
    }
}
