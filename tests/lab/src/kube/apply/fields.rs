//! Sets of fields, in the form of `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of field paths as a tree. A key is `f:name`, `k:{"name":"c"}` or `v:"value"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields {
    /// The path itself is in the set.
    pub own: bool,
    /// What is below it.
    pub kids: BTreeMap<String, Fields>,
}

/// Fields that no manager owns: the server's own.
const SERVERS: [&str; 11] = [
    "f:name",
    "f:namespace",
    "f:uid",
    "f:resourceVersion",
    "f:generation",
    "f:creationTimestamp",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:managedFields",
    "f:selfLink",
    "f:generateName",
];

impl Fields {
    /// True when no path is in the set.
    pub(crate) fn is_empty(&self) -> bool {
        !self.own && self.kids.values().all(Fields::is_empty)
    }

    /// The child, made when it is missing.
    pub(crate) fn kid(&mut self, key: &str) -> &mut Fields {
        self.kids.entry(key.to_owned()).or_default()
    }

    /// Adds a path.
    pub(crate) fn insert(&mut self, path: &[String]) {
        path.iter().fold(self, |at, key| at.kid(key)).own = true;
    }

    /// From `fieldsV1`.
    pub(crate) fn from_json(value: &Value) -> Fields {
        let mut root = Fields::default();
        for (key, inner) in value.as_object().into_iter().flatten() {
            if key == "." {
                root.own = true;
                continue;
            }
            let mut kid = Fields::from_json(inner);
            if kid.kids.is_empty() {
                kid.own = true;
            }
            root.kids.insert(key.clone(), kid);
        }
        root
    }

    /// As `fieldsV1`.
    pub(crate) fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, kid) in &self.kids {
            if kid.is_empty() {
                continue;
            }
            let mut inner = kid.to_json();
            if kid.own
                && let Value::Object(fields) = &mut inner
                && !fields.is_empty()
            {
                fields.shift_insert(0, ".".into(), json!({}));
            }
            map.insert(key.clone(), inner);
        }
        Value::Object(map)
    }

    /// Both sets.
    pub(crate) fn union(&self, other: &Fields) -> Fields {
        let mut all = self.clone();
        all.own |= other.own;
        for (key, kid) in &other.kids {
            let merged = all.kids.get(key).map_or_else(|| kid.clone(), |mine| mine.union(kid));
            all.kids.insert(key.clone(), merged);
        }
        all
    }

    /// What is in this set and not in the other.
    pub(crate) fn minus(&self, other: &Fields) -> Fields {
        self.combine(other, |mine, theirs| mine && !theirs)
    }

    /// What is in both.
    pub(crate) fn both(&self, other: &Fields) -> Fields {
        self.combine(other, |mine, theirs| mine && theirs)
    }

    fn combine(&self, other: &Fields, keep: fn(bool, bool) -> bool) -> Fields {
        static NONE: Fields = Fields { own: false, kids: BTreeMap::new() };
        let kids = self
            .kids
            .iter()
            .map(|(key, kid)| (key.clone(), kid.combine(other.kids.get(key).unwrap_or(&NONE), keep)))
            .filter(|(_, kid)| !kid.is_empty())
            .collect();
        Fields { own: keep(self.own, other.own), kids }
    }

    /// All paths of the set as messages show them (`.spec.containers[name="c"].image`).
    pub(crate) fn paths(&self) -> Vec<String> {
        fn walk(at: &Fields, path: &str, out: &mut Vec<String>) {
            if at.own {
                out.push(path.to_owned());
            }
            for (key, kid) in &at.kids {
                walk(kid, &format!("{path}{}", display(key)), out);
            }
        }
        let mut out = Vec::new();
        walk(self, "", &mut out);
        out
    }

    /// Takes out what belongs to the server, and the parts that a (sub)resource does not write.
    pub(crate) fn without_servers(mut self, reset: &[&str]) -> Fields {
        for key in ["f:apiVersion", "f:kind"].iter().chain(reset) {
            self.kids.remove(*key);
        }
        if let Some(meta) = self.kids.get_mut("f:metadata") {
            meta.own = false;
            for key in SERVERS {
                meta.kids.remove(key);
            }
            if meta.is_empty() {
                self.kids.remove("f:metadata");
            }
        }
        self.own = false;
        self
    }
}

/// The key of an item in a keyed list, as `fieldsV1` writes it.
pub(crate) fn key_of(item: &Value, keys: &[(String, Option<Value>)]) -> String {
    let found: BTreeMap<&str, Value> = keys
        .iter()
        .filter_map(|(key, default)| {
            let value = item.get(key).filter(|v| !v.is_null()).or(default.as_ref())?;
            Some((key.as_str(), value.clone()))
        })
        .collect();
    format!("k:{}", json!(found))
}

/// A path element as messages show it.
pub(crate) fn display(key: &str) -> String {
    if let Some(name) = key.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(value) = key.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let Some(Ok(Value::Object(keys))) = key.strip_prefix("k:").map(serde_json::from_str::<Value>) else {
        return key.to_owned();
    };
    let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("[{}]", parts.join(","))
}
