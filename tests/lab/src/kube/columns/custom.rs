//! The columns that a custom resource definition asks for.

use serde_json::Value;

use super::cells::{Column, age, column, name, since};

pub(super) fn custom_columns(columns: &[Value]) -> Vec<Column> {
    let mut all = vec![name()];
    for definition in columns {
        let path = definition["jsonPath"].as_str().unwrap_or_default().to_owned();
        let date = definition["type"] == "date";
        let title = definition["name"].as_str().unwrap_or_default();
        let cell = move |o: &Value| match json_path(o, &path) {
            Some(found) if date => since(&found),
            Some(found) => found,
            None => Value::Null,
        };
        let mut made = column(title, cell);
        made.priority = definition["priority"].as_i64().unwrap_or(0);
        all.push(made);
    }
    if columns.is_empty() {
        all.push(age());
    }
    all
}

// The JSON paths of printer columns: fields, and one filter of equality.
pub(super) fn json_path(object: &Value, path: &str) -> Option<Value> {
    let mut at = object;
    let mut rest = path.trim_start_matches('$');
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(filter) = rest.strip_prefix("[?(@.") {
            let (inside, tail) = filter.split_once(")]")?;
            let (field, wanted) = inside.split_once("==")?;
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            at = at.as_array()?.iter().find(|i| i[field.trim()] == wanted)?;
            rest = tail;
            continue;
        }
        if let Some(index) = rest.strip_prefix('[') {
            let (n, tail) = index.split_once(']')?;
            at = at.get(n.parse::<usize>().ok()?)?;
            rest = tail;
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        at = at.get(&rest[..end])?;
        rest = &rest[end..];
    }
    Some(at.clone())
}
