//! What differs between an object as it is and as it would be.

use crate::owners;
use crate::path::{Step, written};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// One field that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The field, `.spec.template.spec.containers[name=traefik].image`.
    pub path: String,
    /// The value that is there, as short text; none where the field is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The value that would be there; none where the field goes away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// For text of several lines: the lines that change, as a unified diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<String>,
    /// The field manager that set the value that is there, where that is somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        match (&self.lines, &self.from, &self.to) {
            (Some(lines), _, _) => write!(f, ":\n{}", lines.trim_end())?,
            (None, Some(from), Some(to)) => write!(f, ": {from} -> {to}")?,
            (None, None, Some(to)) => write!(f, ": + {to}")?,
            (None, Some(from), None) => write!(f, ": - {from}")?,
            (None, None, None) => {}
        }
        match &self.by {
            Some(by) => write!(f, " (set by {by})"),
            None => Ok(()),
        }
    }
}

/// The fields that differ, but for what the server keeps itself; a Secret's values are masked.
pub(crate) fn compare(live: &Value, wanted: &Value, manager: &str) -> Vec<FieldChange> {
    let mut found = Vec::new();
    let mut at = Vec::new();
    walk(live, wanted, &mut at, &mut |path, from, to| {
        found.push((path.to_vec(), from.cloned(), to.cloned()))
    });
    let secret = live.get("kind").or(wanted.get("kind")).and_then(Value::as_str) == Some("Secret");
    found.into_iter().map(|(path, from, to)| change(live, &path, from, to, (manager, secret))).collect()
}

fn change(
    live: &Value,
    path: &[Step],
    from: Option<Value>,
    to: Option<Value>,
    (manager, secret): (&str, bool),
) -> FieldChange {
    let by = from.as_ref().and_then(|_| owners::other_owner(live, path, manager));
    let masked = hidden(path, secret);
    let lines = match (&from, &to) {
        (Some(Value::String(from)), Some(Value::String(to)))
            if !masked && (from.contains('\n') || to.contains('\n')) =>
        {
            Some(similar::TextDiff::from_lines(from, to).unified_diff().context_radius(1).to_string())
        }
        _ => None,
    };
    let show =
        |value: Option<Value>| value.map(|value| if masked { "(hidden)".to_owned() } else { short(&value) });
    FieldChange { path: written(path), from: show(from), to: show(to), lines, by }
}

/// Values that may be secret: those of Secrets, and kubectl's copy of a whole object.
fn hidden(path: &[Step], secret: bool) -> bool {
    let key = |index: usize| match path.get(index) {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    (secret && matches!(key(0), "data" | "stringData"))
        || path.iter().any(|step| matches!(step, Step::Key(key) if key == "kubectl.kubernetes.io/last-applied-configuration"))
        || (secret && path.len() < 3 && key(0) == "metadata" && key(1) == "annotations")
}

type Report<'a> = dyn FnMut(&[Step], Option<&Value>, Option<&Value>) + 'a;

fn walk(live: &Value, wanted: &Value, at: &mut Vec<Step>, report: &mut Report<'_>) {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => walk_maps(live, wanted, at, report),
        (Value::Array(live), Value::Array(wanted)) => walk_lists(live, wanted, at, report),
        _ if live == wanted => {}
        _ => report(at, Some(live), Some(wanted)),
    }
}

fn walk_maps(
    live: &Map<String, Value>,
    wanted: &Map<String, Value>,
    at: &mut Vec<Step>,
    report: &mut Report<'_>,
) {
    let added = wanted.keys().filter(|key| !live.contains_key(*key));
    for key in live.keys().chain(added) {
        at.push(Step::Key(key.clone()));
        if !kept_by_server(at) {
            match (live.get(key), wanted.get(key)) {
                (Some(live), Some(wanted)) => walk(live, wanted, at, report),
                (live, wanted) => report(at, live, wanted),
            }
        }
        at.pop();
    }
}

/// Lists whose items have names are compared by name, others by place.
fn walk_lists(live: &[Value], wanted: &[Value], at: &mut Vec<Step>, report: &mut Report<'_>) {
    if live == wanted {
        return;
    }
    let Some(key) = ["name", "type", "key", "ip", "topologyKey"]
        .into_iter()
        .find(|key| named(live, key) && named(wanted, key))
    else {
        for index in 0..live.len().max(wanted.len()) {
            at.push(Step::Index(index));
            match (live.get(index), wanted.get(index)) {
                (Some(live), Some(wanted)) => walk(live, wanted, at, report),
                (live, wanted) => report(at, live, wanted),
            }
            at.pop();
        }
        return;
    };
    let names = |list: &[Value]| list.iter().filter_map(|item| name(item, key)).collect::<Vec<_>>();
    let (old, new) = (names(live), names(wanted));
    let added: Vec<_> = new.iter().filter(|name| !old.contains(name)).cloned().collect();
    let find = |list: &'_ [Value], wanted: &str| {
        list.iter().position(|item| name(item, key).as_deref() == Some(wanted))
    };
    for one in old.iter().chain(&added) {
        at.push(Step::Item(key, one.clone()));
        match (find(live, one).map(|i| &live[i]), find(wanted, one).map(|i| &wanted[i])) {
            (Some(live), Some(wanted)) => walk(live, wanted, at, report),
            (live, wanted) => report(at, live, wanted),
        }
        at.pop();
    }
    if added.is_empty() && old.len() == new.len() && old != new {
        let order = |names: Vec<String>| Value::from(names);
        report(at, Some(&order(old)), Some(&order(new)));
    }
}

fn name(item: &Value, key: &str) -> Option<String> {
    item.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// Whether every item has that field, and no two the same.
fn named(list: &[Value], key: &str) -> bool {
    let mut names: Vec<_> = list.iter().filter_map(|item| item.get(key).and_then(Value::as_str)).collect();
    let all = names.len() == list.len();
    names.sort_unstable();
    names.dedup();
    all && names.len() == list.len()
}

/// What no apply sets: a difference there is none of ours.
fn kept_by_server(path: &[Step]) -> bool {
    let key = |index: usize| match path.get(index) {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    match path.len() {
        1 => key(0) == "status",
        2 => {
            key(0) == "metadata"
                && matches!(
                    key(1),
                    "managedFields"
                        | "resourceVersion"
                        | "generation"
                        | "uid"
                        | "creationTimestamp"
                        | "selfLink"
                )
        }
        _ => false,
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 120 {
        return text;
    }
    let begin: String = text.chars().take(117).collect();
    format!("{begin}...")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(live: Value, wanted: Value) -> Vec<String> {
        compare(&live, &wanted, "me").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn paths_say_where() {
        let live = json!({"metadata": {"labels": {"a.b/c": "1"}, "resourceVersion": "1"}, "status": {"x": 1},
            "spec": {"replicas": 1, "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}], "args": ["x"]}});
        let wanted = json!({"metadata": {"labels": {"a.b/c": "2"}, "resourceVersion": "2"},
            "spec": {"replicas": 1, "containers": [{"name": "a", "image": "a:2"}, {"name": "c", "image": "c:1"}], "args": ["x", "y"]}});
        assert_eq!(
            shown(live, wanted),
            [
                r#".metadata.labels["a.b/c"]: "1" -> "2""#,
                r#".spec.containers[name=a].image: "a:1" -> "a:2""#,
                r#".spec.containers[name=b]: - {"name":"b","image":"b:1"}"#,
                r#".spec.containers[name=c]: + {"name":"c","image":"c:1"}"#,
                r#".spec.args[1]: + "y""#,
            ]
        );
    }

    #[test]
    fn order_counts_and_equality_is_empty() {
        let one = json!({"l": [{"name": "a"}, {"name": "b"}]});
        let two = json!({"l": [{"name": "b"}, {"name": "a"}]});
        assert_eq!(shown(one.clone(), one.clone()), Vec::<String>::new());
        assert_eq!(shown(one, two), [r#".l: ["a","b"] -> ["b","a"]"#]);
        let same_names = json!({"l": [{"name": "a", "v": 1}, {"name": "a", "v": 2}]});
        let other = json!({"l": [{"name": "a", "v": 1}, {"name": "a", "v": 3}]});
        assert_eq!(shown(same_names, other), [".l[1].v: 2 -> 3"]);
    }

    #[test]
    fn text_is_shown_by_lines() {
        let live = json!({"kind": "ConfigMap", "data": {"f": "a\nb\nc\n"}});
        let wanted = json!({"kind": "ConfigMap", "data": {"f": "a\nB\nc\n"}});
        let text = shown(live, wanted).join("\n");
        assert!(text.starts_with(".data.f:\n@@") && text.contains("\n-b\n+B\n"), "{text}");
    }

    #[test]
    fn secrets_are_hidden() {
        let secret = |value: &str| {
            json!({"kind": "Secret", "data": {"k": value}, "stringData": {"m": format!("{value}\nx")},
                "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": value}}})
        };
        let text = shown(secret("hunter2"), secret("hunter3")).join("\n");
        assert!(!text.contains("hunter"), "{text}");
        assert!(text.contains(".data.k: (hidden) -> (hidden)"), "{text}");
        let added = shown(json!({"kind": "Secret", "metadata": {"name": "s"}}), secret("hunter2")).join("\n");
        assert!(!added.contains("hunter2") && added.contains(".stringData: + (hidden)"), "{added}");
    }
}
