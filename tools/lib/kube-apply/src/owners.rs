//! Who set a field: the `managedFields` of an object.
//!
//! Their form is FieldsV1 of structured-merge-diff: `f:name` is a field, `k:{...}` the item of a list by its keys,
//! an empty map a leaf.

use crate::path::Step;
use serde_json::Value;

/// The fields that a manager owns by applying, as the server keeps them.
pub(crate) fn applied<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let entry = entries(object).find(|entry| {
        text(entry, "manager") == manager
            && text(entry, "operation") == "Apply"
            && text(entry, "subresource").is_empty()
    })?;
    entry.get("fieldsV1")
}

/// The manager, other than `mine`, that owns a field.
pub(crate) fn other_owner(object: &Value, path: &[Step], mine: &str) -> Option<String> {
    let owns = |entry: &&Value| entry.get("fieldsV1").is_some_and(|fields| covers(fields, path));
    let others = entries(object).filter(|entry| text(entry, "manager") != mine);
    others.filter(owns).last().map(|entry| text(entry, "manager").to_owned())
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a set of fields has the path, or a part of it that is owned as a whole.
fn covers(fields: &Value, path: &[Step]) -> bool {
    let mut node = fields;
    for step in path {
        let Some(map) = node.as_object() else { return false };
        if map.is_empty() {
            return true;
        }
        let next = match step {
            Step::Key(key) => map.get(&format!("f:{key}")),
            Step::Item(key, value) => {
                map.iter().find(|(name, _)| has_key(name, key, value)).map(|(_, inner)| inner)
            }
            Step::Index(_) => return false,
        };
        match next {
            Some(inner) => node = inner,
            None => return false,
        }
    }
    true
}

fn has_key(name: &str, key: &str, value: &str) -> bool {
    let Some(keys) = name.strip_prefix("k:") else { return false };
    let keys: Value = serde_json::from_str(keys).unwrap_or_default();
    keys.get(key).and_then(Value::as_str) == Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_found_by_path() {
        let object = json!({"metadata": {"managedFields": [
            {"manager": "me", "operation": "Apply", "fieldsV1": {"f:data": {"f:k": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:z": {}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:args": {}}}},
        ]}});
        let key = |name: &str| Step::Key(name.into());
        let owner = |path: &[Step]| other_owner(&object, path, "me");
        assert_eq!(owner(&[key("data"), key("k")]), None);
        assert_eq!(owner(&[key("data"), key("z")]).as_deref(), Some("kubectl-edit"));
        let image = [key("spec"), key("containers"), Step::Item("name", "c".into()), key("image")];
        assert_eq!(owner(&image).as_deref(), Some("kubectl-edit"));
        assert_eq!(owner(&[key("spec"), key("args"), Step::Index(3)]).as_deref(), Some("kubectl-edit"));
        assert_eq!(applied(&object, "me"), Some(&json!({"f:data": {"f:k": {}}})));
        assert_eq!(applied(&object, "kubectl-edit"), None);
    }
}
