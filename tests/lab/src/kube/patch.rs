//! JSON merge patch, JSON patch and strategic merge patch.

use serde_json::{Map, Value};

use super::apply::fields::key_of;
use super::schema::{ListKind, Type};

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in fields {
        if value.is_null() {
            map.shift_remove(name);
        } else {
            merge(map.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// RFC 6902.
pub(crate) fn json(target: &mut Value, patch: &Value) -> Result<(), String> {
    for op in patch.as_array().ok_or("a JSON patch is a list")? {
        let name = op["op"].as_str().unwrap_or_default();
        let path = op["path"].as_str().ok_or("a JSON patch operation has a path")?;
        match name {
            "add" => add(target, path, op["value"].clone())?,
            "replace" => {
                *target.pointer_mut(path).ok_or_else(|| missing(name, path))? = op["value"].clone();
            }
            "remove" => {
                take(target, path).ok_or_else(|| missing(name, path))?;
            }
            "test" => {
                if target.pointer(path) != Some(&op["value"]) {
                    return Err(format!("testing value {path} failed"));
                }
            }
            "move" | "copy" => {
                let from = op["from"].as_str().unwrap_or_default();
                let value = if name == "move" { take(target, from) } else { target.pointer(from).cloned() };
                add(target, path, value.ok_or_else(|| missing(name, from))?)?;
            }
            other => return Err(format!("Unexpected kind: {other}")),
        }
    }
    Ok(())
}

fn missing(op: &str, path: &str) -> String {
    format!("{op} operation does not apply: doc is missing path: \"{path}\": missing value")
}

fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let Some((parent, last)) = split(path) else {
        *target = value;
        return Ok(());
    };
    match target.pointer_mut(parent).ok_or_else(|| missing("add", path))? {
        Value::Object(map) => {
            map.insert(last, value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let at: usize = last.parse().map_err(|_| missing("add", path))?;
            if at > list.len() {
                return Err(missing("add", path));
            }
            list.insert(at, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    let (parent, last) = split(path)?;
    match target.pointer_mut(parent)? {
        Value::Object(map) => map.shift_remove(&last),
        Value::Array(list) => {
            let at: usize = last.parse().ok()?;
            (at < list.len()).then(|| list.remove(at))
        }
        _ => None,
    }
}

/// Strategic merge: lists with keys merge by key, `$patch` and `$deleteFromPrimitiveList` direct it.
pub(crate) fn strategic(target: &mut Value, patch: &Value, ty: &Type) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    match fields.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut fresh = fields.clone();
            fresh.shift_remove("$patch");
            *target = Value::Object(fresh);
            return;
        }
        Some("delete") => {
            *target = Value::Null;
            return;
        }
        _ => {}
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else { return };
    for (name, value) in fields {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Some(gone)) = (map.get_mut(field), value.as_array()) {
                list.retain(|v| !gone.contains(v));
            }
            continue;
        }
        if let Some(kept) = name.strip_prefix("$retainKeys") {
            if kept.is_empty()
                && let Some(keys) = value.as_array()
            {
                map.retain(|k, _| keys.iter().any(|v| v == k));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        if value.is_null() {
            map.shift_remove(name);
            continue;
        }
        let any = Type::Any;
        let ty = ty.field(name).unwrap_or(&any);
        let slot = map.entry(name.clone()).or_insert(Value::Null);
        match (value, merge_keys(ty)) {
            (Value::Array(items), Some(keys)) if slot.is_array() => strategic_list(slot, items, ty, &keys),
            (Value::Array(items), Some(_)) => {
                *slot = items.iter().filter(|i| i.get("$patch").is_none()).cloned().collect();
            }
            (Value::Array(items), None) if *ty.list_kind() == ListKind::Set => {
                if let Value::Array(list) = slot {
                    list.extend(items.iter().filter(|i| !list.contains(i)).cloned().collect::<Vec<_>>());
                } else {
                    *slot = value.clone();
                }
            }
            (Value::Object(_), _) => {
                strategic(slot, value, ty);
                if slot.is_null() {
                    map.shift_remove(name);
                }
            }
            _ => *slot = value.clone(),
        }
    }
}

// Strategic merge has one key a list: the first of those of server-side apply.
fn merge_keys(ty: &Type) -> Option<Vec<(String, Option<Value>)>> {
    match ty.list_kind() {
        ListKind::Keyed(keys) => Some(keys.iter().take(1).cloned().collect()),
        _ => None,
    }
}

fn strategic_list(slot: &mut Value, items: &[Value], ty: &Type, keys: &[(String, Option<Value>)]) {
    if items.iter().any(|i| i["$patch"] == "replace") {
        *slot = items.iter().filter(|i| i.get("$patch").is_none()).cloned().collect();
        return;
    }
    let Value::Array(list) = slot else { return };
    for item in items {
        let key = key_of(item, keys);
        if item["$patch"] == "delete" {
            list.retain(|i| key_of(i, keys) != key);
        } else if let Some(mine) = list.iter_mut().find(|i| key_of(i, keys) == key) {
            strategic(mine, item, ty.items());
        } else {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patches() {
        let mut v = json!({"a": {"b": 1, "c": 2}});
        merge(&mut v, &json!({"a": {"b": null, "d": 3}}));
        assert_eq!(v, json!({"a": {"c": 2, "d": 3}}));
        json_ok(&mut v);
        let ty = crate::kube::schema::builtin("PodSpec").unwrap();
        let mut pod = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}]});
        strategic(
            &mut pod,
            &json!({"containers": [{"name": "a", "image": "y"}, {"name": "b", "$patch": "delete"}]}),
            ty,
        );
        assert_eq!(pod, json!({"containers": [{"name": "a", "image": "y"}]}));
    }

    fn json_ok(v: &mut Value) {
        json(v, &json!([{"op": "add", "path": "/a/x~1y", "value": [1]}, {"op": "add", "path": "/a/x~1y/-", "value": 2},
            {"op": "remove", "path": "/a/c"}, {"op": "replace", "path": "/a/d", "value": 4}]))
        .unwrap();
        assert_eq!(*v, json!({"a": {"d": 4, "x/y": [1, 2]}}));
        assert!(json(v, &json!([{"op": "remove", "path": "/q"}])).is_err());
    }
}
