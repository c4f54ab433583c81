//! Server-side apply and the bookkeeping of who owns which field.

pub(crate) mod fields;
pub(crate) mod merge;

use serde_json::{Value, json};

use self::fields::Fields;
use super::schema::Type;

/// One line of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Managed {
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    pub api_version: String,
    pub subresource: String,
    pub time: String,
    pub fields: Fields,
}

/// Who writes, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer<'w> {
    pub manager: &'w str,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: &'w str,
    pub now: String,
    /// Parts that this write never touches (`f:status` for the object itself, when status is a subresource).
    pub reset: Vec<&'w str>,
}

/// Reads `metadata.managedFields`.
pub(crate) fn managed(object: &Value) -> Vec<Managed> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|m| Managed {
            manager: text(&m["manager"]),
            operation: text(&m["operation"]),
            api_version: text(&m["apiVersion"]),
            subresource: text(&m["subresource"]),
            time: text(&m["time"]),
            fields: Fields::from_json(&m["fieldsV1"]),
        })
        .collect()
}

/// Writes `metadata.managedFields`: applied ones first, then by age.
pub(crate) fn set_managed(object: &mut Value, mut entries: Vec<Managed>) {
    entries.retain(|m| !m.fields.is_empty());
    entries.sort_by(|a, b| (&a.operation, &a.time, &a.manager).cmp(&(&b.operation, &b.time, &b.manager)));
    let list: Vec<Value> = entries
        .iter()
        .map(|m| {
            let mut line = json!({"manager": m.manager, "operation": m.operation, "apiVersion": m.api_version,
                "time": m.time, "fieldsType": "FieldsV1", "fieldsV1": m.fields.to_json()});
            if !m.subresource.is_empty() {
                line["subresource"] = m.subresource.as_str().into();
            }
            line
        })
        .collect();
    let Some(meta) = object["metadata"].as_object_mut() else { return };
    if list.is_empty() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".into(), list.into());
    }
}

/// Fields of others that an apply without force would change: `(manager, field)`.
pub(crate) type Conflicts = Vec<(String, String)>;

/// Merges an applied configuration into the live object. Gives the new object (not yet defaulted) and the
/// managers' entries that go with it.
pub(crate) fn apply(
    live: &Value,
    patch: &Value,
    ty: &Type,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Vec<Managed>), Conflicts> {
    let mut entries = managed(live);
    let mine = |m: &Managed| {
        m.operation == "Apply" && m.manager == writer.manager && m.subresource == writer.subresource
    };
    let mut new_set = Fields::default();
    merge::owned(patch, ty, &mut new_set);
    let new_set = new_set.without_servers(&writer.reset);
    let mut merged = merge::merge(live, patch, ty);

    let diff = merge::compare(Some(live), Some(&merged), ty);
    let touched = diff.added.union(&diff.modified).without_servers(&writer.reset);
    let mut conflicts = Conflicts::new();
    for entry in entries.iter().filter(|m| !mine(m)) {
        for path in entry.fields.both(&touched).paths() {
            conflicts.push((manager_text(entry), path));
        }
    }
    if !conflicts.is_empty() {
        if !force {
            return Err(conflicts);
        }
        for entry in entries.iter_mut() {
            if !mine(entry) {
                entry.fields = entry.fields.minus(&touched);
            }
        }
    }

    let others = entries
        .iter()
        .filter(|m| !mine(m))
        .fold(Fields::default(), |all, m| all.union(&m.fields))
        .union(&new_set);
    if let Some(before) = entries.iter().find(|m| mine(m)) {
        let gone = before.fields.minus(&new_set);
        merge::remove(&mut merged, ty, &gone, Some(&others));
    }
    match entries.iter_mut().find(|m| mine(m)) {
        Some(entry) => {
            if entry.fields != new_set || entry.api_version != writer.api_version {
                entry.time = writer.now.clone();
            }
            entry.fields = new_set;
            entry.api_version = writer.api_version.clone();
        }
        None => entries.push(Managed {
            manager: writer.manager.into(),
            operation: "Apply".into(),
            api_version: writer.api_version.clone(),
            subresource: writer.subresource.into(),
            time: writer.now.clone(),
            fields: new_set,
        }),
    }
    let removed = merge::compare(Some(live), Some(&merged), ty).removed;
    for entry in entries.iter_mut().filter(|m| !(m.operation == "Apply" && m.manager == writer.manager)) {
        entry.fields = entry.fields.minus(&removed);
    }
    Ok((merged, entries))
}

fn manager_text(entry: &Managed) -> String {
    let mut text = format!("\"{}\"", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource \"{}\"", entry.subresource));
    }
    if entry.operation == "Update" {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

/// Books what a plain write changed on its manager, and takes it from the others.
pub(crate) fn book(old: &Value, new: &Value, ty: &Type, writer: &Writer<'_>) -> Vec<Managed> {
    let mut entries = managed(old);
    let diff = merge::compare(Some(old), Some(new), ty);
    let touched = diff.added.union(&diff.modified).without_servers(&writer.reset);
    let removed = diff.removed;
    let mine = |m: &Managed| {
        m.operation == "Update" && m.manager == writer.manager && m.subresource == writer.subresource
    };
    for entry in &mut entries {
        entry.fields = entry.fields.minus(&removed);
        if !mine(entry) {
            entry.fields = entry.fields.minus(&touched);
        }
    }
    if touched.is_empty() {
        return entries;
    }
    match entries.iter_mut().find(|m| mine(m)) {
        Some(entry) => {
            let all = entry.fields.union(&touched);
            if all != entry.fields {
                entry.time = writer.now.clone();
            }
            entry.fields = all;
        }
        None => entries.push(Managed {
            manager: writer.manager.into(),
            operation: "Update".into(),
            api_version: writer.api_version.clone(),
            subresource: writer.subresource.into(),
            time: writer.now.clone(),
            fields: touched,
        }),
    }
    entries
}
