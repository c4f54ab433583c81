//! Columns and what stands in their cells.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A column: its name, type, priority and cell.
pub(crate) struct Column {
    pub name: String,
    pub kind: &'static str,
    pub priority: i64,
    pub cell: Box<dyn Fn(&Value) -> Value>,
}

pub(super) fn column(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column { name: name.into(), kind: "string", priority: 0, cell: Box::new(cell) }
}

pub(super) fn wide(name: &str, cell: impl Fn(&Value) -> Value + 'static) -> Column {
    Column { priority: 1, ..column(name, cell) }
}

pub(super) fn at(pointer: &'static str) -> impl Fn(&Value) -> Value {
    move |object| match object.pointer(pointer) {
        None | Some(Value::Null) => "<none>".into(),
        Some(value) => value.clone(),
    }
}

pub(super) fn number(pointer: &'static str) -> impl Fn(&Value) -> Value {
    move |object| object.pointer(pointer).cloned().unwrap_or_else(|| 0.into())
}

pub(super) fn items<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn joined(list: impl Iterator<Item = String>) -> Value {
    let all: Vec<String> = list.collect();
    if all.is_empty() { "<none>".into() } else { all.join(",").into() }
}

/// How long ago, as kubectl writes it.
pub(crate) fn since(value: &Value) -> Value {
    let Some(then) = value.as_str().and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok()) else {
        return "<unknown>".into();
    };
    let seconds = (OffsetDateTime::now_utc() - then).whole_seconds().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let text = match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if seconds % 60 != 0 => format!("{minutes}m{}s", seconds % 60),
        120..10_800 => format!("{minutes}m"),
        10_800..28_800 if minutes % 60 != 0 => format!("{hours}h{}m", minutes % 60),
        10_800..172_800 => format!("{hours}h"),
        172_800..691_200 if hours % 24 != 0 => format!("{days}d{}h", hours % 24),
        _ => format!("{days}d"),
    };
    text.into()
}

pub(super) fn age() -> Column {
    column("Age", |o| since(&o["metadata"]["creationTimestamp"]))
}

pub(super) fn name() -> Column {
    column("Name", at("/metadata/name"))
}

pub(super) fn out_of(ready: &'static str, wanted: &'static str) -> impl Fn(&Value) -> Value {
    move |o| format!("{}/{}", number(ready)(o), number(wanted)(o)).into()
}

pub(super) fn condition(object: &Value, kind: &str) -> Value {
    items(object, "/status/conditions").iter().find(|c| c["type"] == kind).cloned().unwrap_or_default()
}

pub(super) fn labels_with<'v>(object: &'v Value, prefix: &'v str) -> impl Iterator<Item = String> + 'v {
    object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(move |(k, _)| k.strip_prefix(prefix).map(str::to_owned))
}

pub(super) fn containers(pointer: &'static str, field: &'static str) -> impl Fn(&Value) -> Value {
    move |o| joined(items(o, pointer).iter().filter_map(|c| c[field].as_str()).map(str::to_owned))
}

pub(super) fn selector_text(value: &Value) -> Value {
    joined(
        value
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())),
    )
}

pub(super) fn pod_status(pod: &Value) -> String {
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return "Terminating".into();
    }
    for status in items(pod, "/status/containerStatuses") {
        if let Some(reason) = status.pointer("/state/waiting/reason").and_then(Value::as_str) {
            return reason.into();
        }
        if let Some(reason) = status.pointer("/state/terminated/reason").and_then(Value::as_str) {
            return reason.into();
        }
    }
    pod["status"]["phase"].as_str().unwrap_or("Pending").into()
}

pub(super) fn node_status(node: &Value) -> String {
    let ready = condition(node, "Ready");
    let mut text = match ready["status"].as_str() {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

pub(super) fn address(node: &Value, kind: &str) -> Value {
    items(node, "/status/addresses")
        .iter()
        .find(|a| a["type"] == kind)
        .map_or_else(|| "<none>".into(), |a| a["address"].clone())
}

pub(super) fn modes(value: &Value) -> Value {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        _ => "",
    };
    let all: Vec<&str> =
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(short).collect();
    all.join(",").into()
}
