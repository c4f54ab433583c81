//! Values against types: what a typed patch and a strict decoder refuse.

use serde_json::Value;

use super::{ListKind, Type};
use crate::kube::apply::fields::key_of;

/// The first thing wrong with a value, as structured-merge-diff words it (`.spec.x: field not declared in schema`).
pub(crate) fn typed(value: &Value, ty: &Type, path: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{path}: {what}"));
    if value.is_null() {
        return Ok(());
    }
    match ty.resolved() {
        Type::Any | Type::Named(..) => Ok(()),
        Type::Str if !value.is_string() => wrong(&format!("expected string, got {}", go_value(value))),
        Type::Int | Type::Num if !value.is_number() => {
            wrong(&format!("expected numeric (int or float), got {}", go_type(value)))
        }
        Type::Bool if !value.is_boolean() => wrong(&format!("expected boolean, got {}", go_type(value))),
        Type::IntOrStr if value.is_object() || value.is_array() => {
            wrong(&format!("expected string, got {}", go_type(value)))
        }
        Type::Object { fields, open, .. } => {
            let Value::Object(map) = value else {
                return wrong(&format!("expected map, got {}", go_value(value)));
            };
            for (name, inner) in map {
                match fields.get(name) {
                    Some(t) => typed(inner, t, &format!("{path}.{name}"))?,
                    None if *open => {}
                    None => return Err(format!("{path}.{name}: field not declared in schema")),
                }
            }
            Ok(())
        }
        Type::Map(of, _) => {
            let Value::Object(map) = value else {
                return wrong(&format!("expected map, got {}", go_value(value)));
            };
            map.iter().try_for_each(|(name, inner)| typed(inner, of, &format!("{path}.{name}")))
        }
        Type::List(of, kind) => {
            let Value::Array(list) = value else {
                return wrong(&format!("expected list, got {}", go_value(value)));
            };
            let mut seen = std::collections::BTreeSet::new();
            for (i, item) in list.iter().enumerate() {
                let at = match kind {
                    ListKind::Keyed(keys) => {
                        if let Some((missing, _)) =
                            keys.iter().find(|(k, default)| default.is_none() && item.get(k).is_none())
                        {
                            return wrong(&format!(
                                "element {i}: associative list with keys has an element that omits key field \"{missing}\" (and doesn't have default value)"
                            ));
                        }
                        crate::kube::apply::fields::display(&key_of(item, keys))
                    }
                    ListKind::Set => {
                        let text = format!("[={item}]");
                        if !seen.insert(text.clone()) {
                            return wrong(&format!("duplicate entries for key {text}"));
                        }
                        text
                    }
                    ListKind::Atomic => format!("[{i}]"),
                };
                if matches!(kind, ListKind::Keyed(_)) && !seen.insert(at.clone()) {
                    return wrong(&format!("duplicate entries for key {at}"));
                }
                typed(item, of, &format!("{path}{at}"))?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

fn go_value(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => format!("&value.valueUnstructured{{Value:{other}}}"),
    }
}

/// A wrong type in a body that is decoded, as Go's decoder words it.
pub(crate) fn decode(value: &Value, ty: &Type, path: &str) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    let wrong = |wanted: &str| {
        let got = match value {
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            _ => "object",
        };
        Err(format!("json: cannot unmarshal {got} into Go struct field {path} of type {wanted}"))
    };
    match ty.resolved() {
        Type::Str if !value.is_string() => wrong("string"),
        Type::Int if !value.is_number() => wrong("int32"),
        Type::Num if !value.is_number() => wrong("float64"),
        Type::Bool if !value.is_boolean() => wrong("bool"),
        Type::Object { .. } | Type::Map(..) => match value {
            Value::Object(map) => map.iter().try_for_each(|(name, inner)| match ty.field(name) {
                Some(t) => decode(inner, t, &join(path, name)),
                None => Ok(()),
            }),
            _ => wrong("map"),
        },
        Type::List(of, _) => match value {
            Value::Array(list) => list.iter().try_for_each(|item| decode(item, of, path)),
            _ => wrong("[]interface"),
        },
        _ => Ok(()),
    }
}

/// Takes out fields that the type does not have, and gives their paths (`spec.replicaz`).
pub(crate) fn prune(value: &mut Value, ty: &Type, path: &str, unknown: &mut Vec<String>) {
    match (ty.resolved(), value) {
        (Type::Object { fields, open, .. }, Value::Object(map)) => {
            if !*open {
                let gone: Vec<String> = map.keys().filter(|k| !fields.contains_key(*k)).cloned().collect();
                for name in gone {
                    map.shift_remove(&name);
                    unknown.push(join(path, &name));
                }
            }
            for (name, inner) in map.iter_mut() {
                if let Some(t) = fields.get(name) {
                    prune(inner, t, &join(path, name), unknown);
                }
            }
        }
        (Type::Map(of, _), Value::Object(map)) => {
            map.iter_mut().for_each(|(name, inner)| prune(inner, of, &join(path, name), unknown));
        }
        (Type::List(of, _), Value::Array(list)) => {
            list.iter_mut()
                .enumerate()
                .for_each(|(i, item)| prune(item, of, &format!("{path}[{i}]"), unknown));
        }
        _ => {}
    }
}

/// Takes out nulls, as decoding into Go's structs does.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The type of a whole object: `apiVersion`, `kind` and the kind's own fields.
pub(crate) fn rooted(ty: &Type) -> Type {
    match ty.resolved() {
        Type::Object { fields, atomic, open } => {
            let mut fields = fields.clone();
            fields.insert("apiVersion".into(), Type::Str);
            fields.insert("kind".into(), Type::Str);
            Type::Object { fields, atomic: *atomic, open: *open }
        }
        other => other.clone(),
    }
}
