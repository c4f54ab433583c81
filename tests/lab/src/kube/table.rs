//! Objects as they are shown: whole, as a Table for `kubectl get`, or their metadata alone.

use serde_json::{Value, json};

use super::columns;
use super::resources::Resource;

enum Form {
    Whole,
    Table(String),
    Metadata(String),
}

fn form(accept: &str) -> Form {
    for part in accept.split(',') {
        let group = |default: &str| {
            let version = part.split(';').find_map(|p| p.trim().strip_prefix("v=")).unwrap_or(default);
            format!("meta.k8s.io/{version}")
        };
        if part.contains("as=Table") {
            return Form::Table(group("v1"));
        }
        if part.contains("as=PartialObjectMetadata") {
            return Form::Metadata(group("v1"));
        }
        if part.trim() == "application/json" || part.trim() == "*/*" {
            return Form::Whole;
        }
    }
    Form::Whole
}

fn metadata(version: &str, object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": object["metadata"]})
}

/// One object in the form that the client accepts; `first` says whether a table repeats its columns.
pub(crate) fn shown(accept: &str, include: &str, res: &Resource, object: Value, first: bool) -> Value {
    match form(accept) {
        Form::Whole => object,
        Form::Metadata(version) => metadata(&version, &object),
        Form::Table(version) => {
            let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            table(&version, include, res, vec![object], meta, first)
        }
    }
}

/// A list in the form that the client accepts.
pub(crate) fn shown_list(
    accept: &str,
    include: &str,
    res: &Resource,
    items: Vec<Value>,
    meta: Value,
) -> Value {
    match form(accept) {
        Form::Whole => {
            let items: Vec<Value> = items
                .into_iter()
                .map(|mut item| {
                    if res.custom.is_none()
                        && let Some(map) = item.as_object_mut()
                    {
                        map.shift_remove("kind");
                        map.shift_remove("apiVersion");
                    }
                    item
                })
                .collect();
            json!({"kind": res.list_kind(), "apiVersion": res.api_version(), "metadata": meta, "items": items})
        }
        Form::Metadata(version) => {
            let items: Vec<Value> = items.iter().map(|o| metadata(&version, o)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": meta, "items": items})
        }
        Form::Table(version) => table(&version, include, res, items, meta, true),
    }
}

fn table(version: &str, include: &str, res: &Resource, items: Vec<Value>, meta: Value, first: bool) -> Value {
    let columns = columns::of(res);
    let definitions: Vec<Value> = columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.kind, "format": if c.name == "Name" { "name" } else { "" },
            "description": "", "priority": c.priority})
        })
        .collect();
    let rows: Vec<Value> = items
        .into_iter()
        .map(|object| {
            let cells: Vec<Value> = columns.iter().map(|c| (c.cell)(&object)).collect();
            let object = match include {
                "None" => Value::Null,
                "Object" => object,
                _ => metadata(version, &object),
            };
            json!({"cells": cells, "object": object})
        })
        .collect();
    let mut table = json!({"kind": "Table", "apiVersion": version, "metadata": meta, "rows": rows});
    table["columnDefinitions"] = if first { definitions.into() } else { Value::Null };
    table
}
