//! Structured merge: the fields of a value, the difference of two, the merge of one into another.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fields::{Fields, key_of};
use crate::kube::schema::{ListKind, Type};

/// The paths that an applied configuration owns: its leaves and its list items.
pub(crate) fn owned(value: &Value, ty: &Type, out: &mut Fields) {
    if ty.atomic() {
        out.own = true;
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, inner) in map {
                if let Some(t) = ty.field(name) {
                    owned(inner, t, out.kid(&format!("f:{name}")));
                }
            }
        }
        Value::Array(list) if !list.is_empty() => match ty.list_kind() {
            ListKind::Keyed(keys) => {
                for item in list {
                    let kid = out.kid(&key_of(item, keys));
                    kid.own = true;
                    if item.as_object().is_some_and(|m| !m.is_empty()) {
                        owned(item, ty.items(), kid);
                    }
                }
            }
            ListKind::Set => list.iter().for_each(|item| out.kid(&format!("v:{item}")).own = true),
            ListKind::Atomic => out.own = true,
        },
        _ => out.own = true,
    }
}

/// What differs between two values.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Only in the new one.
    pub added: Fields,
    /// In both, with another value.
    pub modified: Fields,
    /// Only in the old one.
    pub removed: Fields,
}

/// Compares two values of a type.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, ty: &Type) -> Difference {
    let mut found = Difference::default();
    walk(old, new, ty, &mut Vec::new(), &mut found);
    found
}

fn walk(old: Option<&Value>, new: Option<&Value>, ty: &Type, path: &mut Vec<String>, found: &mut Difference) {
    if old == new {
        return;
    }
    let granular = |v: Option<&Value>| match v {
        None | Some(Value::Null) => true,
        Some(Value::Object(_)) => matches!(ty.resolved(), Type::Object { .. } | Type::Map(..) | Type::Any),
        Some(Value::Array(_)) => *ty.list_kind() != ListKind::Atomic,
        _ => false,
    };
    let is_leaf = ty.atomic() || !granular(old) || !granular(new);
    // A struct is not a field of its own; a map, a list and a list's item are.
    let counts = is_leaf
        || matches!(ty.resolved(), Type::Map(..) | Type::List(..))
        || path.last().is_some_and(|k| k.starts_with("k:"));
    match (old, new) {
        (None, Some(_)) if counts => found.added.insert(path),
        (Some(_), None) if counts => found.removed.insert(path),
        (Some(_), Some(_)) if is_leaf => found.modified.insert(path),
        _ => {}
    }
    if is_leaf {
        return;
    }
    let old_map = old.and_then(Value::as_object);
    let new_map = new.and_then(Value::as_object);
    if old_map.is_some() || new_map.is_some() {
        let names: BTreeSet<&String> =
            old_map.iter().flat_map(|m| m.keys()).chain(new_map.iter().flat_map(|m| m.keys())).collect();
        for name in names {
            if let Some(t) = ty.field(name) {
                path.push(format!("f:{name}"));
                walk(old_map.and_then(|m| m.get(name)), new_map.and_then(|m| m.get(name)), t, path, found);
                path.pop();
            }
        }
        return;
    }
    let list = |v: Option<&Value>| v.and_then(Value::as_array).cloned().unwrap_or_default();
    let (old_list, new_list) = (list(old), list(new));
    let key = |item: &Value| match ty.list_kind() {
        ListKind::Keyed(keys) => key_of(item, keys),
        _ => format!("v:{item}"),
    };
    let keys: BTreeSet<String> = old_list.iter().chain(&new_list).map(key).collect();
    for k in keys {
        let old = old_list.iter().find(|i| key(i) == k);
        let new = new_list.iter().find(|i| key(i) == k);
        path.push(k);
        walk(old, new, ty.items(), path, found);
        path.pop();
    }
}

/// The live value with the applied one merged in.
pub(crate) fn merge(live: &Value, patch: &Value, ty: &Type) -> Value {
    if ty.atomic() {
        return patch.clone();
    }
    match (live, patch) {
        (Value::Object(a), Value::Object(b)) => {
            let mut all = a.clone();
            for (name, inner) in b {
                let merged = match (a.get(name), ty.field(name)) {
                    (Some(mine), Some(t)) => merge(mine, inner, t),
                    _ => inner.clone(),
                };
                all.insert(name.clone(), merged);
            }
            Value::Object(all)
        }
        (Value::Array(a), Value::Array(b)) => match ty.list_kind() {
            ListKind::Keyed(keys) => merge_items(a, b, |i| key_of(i, keys), |x, y| merge(x, y, ty.items())),
            ListKind::Set => merge_items(a, b, Value::to_string, |_, y| y.clone()),
            ListKind::Atomic => patch.clone(),
        },
        _ => patch.clone(),
    }
}

// The order of the applied list rules among its items; items that are only in the live list stay where they were.
fn merge_items(
    live: &[Value],
    patch: &[Value],
    key: impl Fn(&Value) -> String,
    join: impl Fn(&Value, &Value) -> Value,
) -> Value {
    let wanted: Vec<String> = patch.iter().map(&key).collect();
    let mut out = Vec::new();
    let mut next = 0;
    let mut rest = live.iter();
    let mut pending = rest.next();
    while next < patch.len() || pending.is_some() {
        if let Some(item) = pending {
            let k = key(item);
            if !wanted.contains(&k) {
                out.push(item.clone());
                pending = rest.next();
                continue;
            }
            if wanted[next..].contains(&k) {
                while wanted[next] != k {
                    out.push(joined(&patch[next], live, &key, &join));
                    next += 1;
                }
                out.push(join(item, &patch[next]));
                next += 1;
            }
            pending = rest.next();
        } else {
            out.push(joined(&patch[next], live, &key, &join));
            next += 1;
        }
    }
    Value::Array(out)
}

fn joined(
    item: &Value,
    live: &[Value],
    key: &impl Fn(&Value) -> String,
    join: &impl Fn(&Value, &Value) -> Value,
) -> Value {
    let k = key(item);
    live.iter().find(|l| key(l) == k).map_or_else(|| item.clone(), |l| join(l, item))
}

/// Takes out what the manager owned and applies no more; `keep` is what others own and what it still applies.
pub(crate) fn remove(value: &mut Value, ty: &Type, gone: &Fields, keep: Option<&Fields>) {
    let kept = |key: &str| keep.and_then(|k| k.kids.get(key));
    match value {
        Value::Object(map) => {
            for (key, inner) in &gone.kids {
                let Some(name) = key.strip_prefix("f:") else { continue };
                let Some(child) = map.get_mut(name) else { continue };
                let still = kept(key);
                if inner.own && still.is_none_or(Fields::is_empty) {
                    map.shift_remove(name);
                    continue;
                }
                let was_empty = is_bare(child);
                if let Some(t) = ty.field(name) {
                    remove(child, t, inner, still);
                }
                if !was_empty && is_bare(child) && still.is_none_or(Fields::is_empty) {
                    map.shift_remove(name);
                }
            }
        }
        Value::Array(list) => {
            let key = |item: &Value| match ty.list_kind() {
                ListKind::Keyed(keys) => key_of(item, keys),
                _ => format!("v:{item}"),
            };
            list.retain(|item| {
                let k = key(item);
                !gone.kids.get(&k).is_some_and(|g| g.own && kept(&k).is_none_or(Fields::is_empty))
            });
            for item in list.iter_mut() {
                let k = key(item);
                if let Some(inner) = gone.kids.get(&k) {
                    remove(item, ty.items(), inner, kept(&k));
                }
            }
        }
        _ => {}
    }
}

fn is_bare(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
