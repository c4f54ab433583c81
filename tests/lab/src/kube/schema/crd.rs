//! Structural schemas of custom resources: their type, validation, defaults.

use serde_json::Value;

use super::{ListKind, Type};

/// One field's fault, as an API server lists it.
pub(crate) struct Fault {
    /// The path, such as `spec.n`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueTypeInvalid` or `FieldValueNotSupported`.
    pub reason: &'static str,
    /// `Required value`, or `Invalid value: ...`.
    pub message: String,
}

/// The type that an OpenAPI v3 schema describes.
pub(crate) fn type_of(schema: &Value, root: bool) -> Type {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    if flag("x-kubernetes-int-or-string") {
        return Type::IntOrStr;
    }
    let open = flag("x-kubernetes-preserve-unknown-fields");
    let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
    match schema.get("type").and_then(Value::as_str) {
        Some("string") => Type::Str,
        Some("integer") => Type::Int,
        Some("number") => Type::Num,
        Some("boolean") => Type::Bool,
        Some("array") => {
            let of = Box::new(schema.get("items").map_or(Type::Any, |i| type_of(i, false)));
            let kind = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                Some("set") => ListKind::Set,
                Some("map") => ListKind::Keyed(
                    schema
                        .get("x-kubernetes-list-map-keys")
                        .and_then(Value::as_array)
                        .into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(|k| {
                            (k.to_owned(), schema.pointer(&format!("/items/properties/{k}/default")).cloned())
                        })
                        .collect(),
                ),
                _ => ListKind::Atomic,
            };
            Type::List(of, kind)
        }
        Some("object") | None if root || schema.get("properties").is_some() => {
            let mut fields: std::collections::BTreeMap<String, Type> = schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, inner)| (name.clone(), type_of(inner, false)))
                .collect();
            if root {
                fields.insert("metadata".into(), Type::Named("ObjectMeta".into(), false));
                fields.insert("apiVersion".into(), Type::Str);
                fields.insert("kind".into(), Type::Str);
            }
            Type::Object { fields, atomic, open }
        }
        Some("object") => match schema.get("additionalProperties") {
            Some(Value::Object(_)) => {
                Type::Map(Box::new(type_of(&schema["additionalProperties"], false)), atomic)
            }
            _ if open => Type::Any,
            Some(Value::Bool(true)) => Type::Map(Box::new(Type::Any), atomic),
            _ => Type::Object { fields: Default::default(), atomic, open },
        },
        _ => Type::Any,
    }
}

/// Fills in the schema's defaults.
pub(crate) fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
                for (name, inner) in properties {
                    if !map.contains_key(name)
                        && let Some(default) = inner.get("default")
                    {
                        map.insert(name.clone(), default.clone());
                    }
                    if let Some(child) = map.get_mut(name) {
                        fill(child, inner);
                    }
                }
            }
            if let Some(inner @ Value::Object(_)) = schema.get("additionalProperties") {
                map.values_mut().for_each(|child| fill(child, inner));
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|item| fill(item, items));
            }
        }
        _ => {}
    }
}

/// Everything that the schema forbids.
pub(crate) fn validate(value: &Value, schema: &Value, path: &str, faults: &mut Vec<Fault>) {
    let mut fault = |field: &str, reason: &'static str, message: String| {
        faults.push(Fault { field: field.to_owned(), reason, message });
    };
    if value.is_null() && schema.get("nullable") == Some(&Value::Bool(true)) {
        return;
    }
    let int_or_string = schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    if let Some(wanted) = schema.get("type").and_then(Value::as_str)
        && !int_or_string
        && !is_type(value, wanted)
    {
        let message = format!(
            "Invalid value: \"{}\": {path} in body must be of type {wanted}: \"{}\"",
            type_name(value),
            type_name(value)
        );
        return fault(path, "FieldValueTypeInvalid", message);
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let list: Vec<String> = allowed.iter().map(Value::to_string).collect();
        fault(
            path,
            "FieldValueNotSupported",
            format!("Unsupported value: {value}: supported values: {}", list.join(", ")),
        );
    }
    if let (Some(least), Some(n)) = (schema.get("minimum").and_then(Value::as_f64), value.as_f64())
        && n < least
    {
        fault(
            path,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {path} in body should be greater than or equal to {least}"),
        );
    }
    if let (Some(most), Some(n)) = (schema.get("maximum").and_then(Value::as_f64), value.as_f64())
        && n > most
    {
        fault(
            path,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {path} in body should be less than or equal to {most}"),
        );
    }
    if let (Some(least), Some(text)) = (schema.get("minLength").and_then(Value::as_u64), value.as_str())
        && (text.chars().count() as u64) < least
    {
        fault(
            path,
            "FieldValueInvalid",
            format!("Invalid value: {value}: {path} in body should be at least {least} chars long"),
        );
    }
    let dotted = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if let Value::Object(map) = value {
        for name in
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        {
            if !map.contains_key(name) {
                fault(&dotted(name), "FieldValueRequired", "Required value".into());
            }
        }
        for (name, inner) in map {
            if path.is_empty() && matches!(name.as_str(), "metadata" | "apiVersion" | "kind") {
                continue;
            }
            if let Some(s) =
                schema.pointer(&format!("/properties/{}", name.replace('~', "~0").replace('/', "~1")))
            {
                validate(inner, s, &dotted(name), faults);
            } else if let Some(s @ Value::Object(_)) = schema.get("additionalProperties") {
                validate(inner, s, &dotted(name), faults);
            }
        }
    } else if let (Value::Array(list), Some(items)) = (value, schema.get("items")) {
        for (i, item) in list.iter().enumerate() {
            validate(item, items, &format!("{path}[{i}]"), faults);
        }
    }
}

fn is_type(value: &Value, wanted: &str) -> bool {
    match wanted {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
