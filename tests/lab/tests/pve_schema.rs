//! The lab's own tables against recorded answers of Proxmox's validator and its published schema.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use lab::pve::schema::{Errors, Generation, Kind, Look, Schema, Value, Values, verify};
use serde_json::{Map, Value as Json};

fn facts(name: &str) -> Option<Json> {
    let folder = std::env::var_os("KUBELINE_FACTS").map(PathBuf::from).or_else(|| {
        let start = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        start.ancestors().filter_map(|a| a.parent()).map(|a| a.join("shared/facts")).find(|p| p.is_dir())
    });
    let Some(folder) = folder else {
        println!("skipped: no shared/facts folder beside the workspace (KUBELINE_FACTS names one)");
        return None;
    };
    let text = std::fs::read_to_string(folder.join("pve-api").join(name)).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// What the lab answers, before any code runs: status and errors.
fn answer(schema: &Schema, method: &str, path: &str, params: &Map<String, Json>) -> (u64, Errors) {
    let Some((route, in_path)) = schema.find(method, path) else { return (501, Errors::new()) };
    let mut values = Values::new();
    for (name, value) in params {
        let value = match value {
            Json::Array(items) => Value::Many(items.iter().map(|i| i.as_str().unwrap().to_owned()).collect()),
            other => Value::One(other.as_str().unwrap().to_owned()),
        };
        if let (Some(there), Value::One(here)) = (in_path.get(name), &value)
            && there != here
        {
            let text = "duplicate parameter (already defined in URI) with conflicting values!";
            return (400, [(name.clone(), text.to_owned())].into());
        }
        values.insert(name.clone(), value);
    }
    values.extend(in_path.into_iter().map(|(k, v)| (k, Value::One(v))));
    let errors = verify(schema, &route.params, &mut values);
    (if errors.is_empty() { 200 } else { 400 }, errors)
}

#[test]
fn answers_as_the_recorded_validator() {
    let Some(recorded) = facts("validate-vectors.json") else { return };
    let vectors = recorded["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 262);
    let mut wrong = Vec::new();
    for (generation, key) in [(Generation::V9, "expect"), (Generation::V8, "expect_8_4")] {
        let schema = Schema::new(generation).unwrap();
        for vector in vectors {
            let expect = vector.get(key).unwrap_or(&vector["expect"]);
            let (method, path) = (vector["method"].as_str().unwrap(), vector["path"].as_str().unwrap());
            let (status, errors) = answer(&schema, method, path, vector["params"].as_object().unwrap());
            let wanted: Errors = expect
                .get("errors")
                .and_then(Json::as_object)
                .map(|e| e.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned())).collect())
                .unwrap_or_default();
            if Some(status) != expect["status"].as_u64() || errors != wanted {
                let params: String = vector["params"].to_string().chars().take(300).collect();
                wrong.push(format!(
                    "{generation:?} {method} {path} {params}\n  {status} {errors:?}\n  wanted {expect}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A parameter's look in one comparable line, from the lab's tables.
fn line(look: &Look) -> String {
    let kind = match look.kind {
        Kind::Bool => "boolean",
        Kind::Int => "integer",
        Kind::Num => "number",
        Kind::Str => "string",
        Kind::Arr => "array",
    };
    if let Some(alias) = &look.alias {
        return format!("alias {alias} {:?}", look.key_alias);
    }
    let number = |n: Option<f64>| n.map(|n| n.to_string());
    format!(
        "{kind} optional={} f={:?} re={:?} {:?}..{:?} {:?}..{:?} in={:?} needs={:?} default={}",
        look.optional,
        look.format.as_ref().or(look.props.as_ref()),
        look.pattern.as_ref().map(|p| &p.0),
        number(look.min),
        number(look.max),
        look.min_len,
        look.max_len,
        look.values,
        look.needs,
        look.default_key,
    )
}

/// The same from the published schema.
fn published(look: &Json) -> String {
    if let Some(alias) = look["alias"].as_str() {
        return format!("alias {alias} {:?}", look["keyAlias"].as_str());
    }
    let text = |key: &str| look[key].as_str().map(str::to_owned);
    let number = |key: &str| look[key].as_f64().map(|n| n.to_string());
    let length = |key: &str| look[key].as_u64().map(|n| n as usize);
    let reference = text("format").or(text("format_ref")).map(|f| f.trim_end_matches("#2").to_owned());
    let values: Option<Vec<String>> =
        look["enum"].as_array().map(|l| l.iter().map(|v| v.as_str().unwrap().to_owned()).collect());
    format!(
        "{} optional={} f={:?} re={:?} {:?}..{:?} {:?}..{:?} in={:?} needs={:?} default={}",
        look["type"].as_str().unwrap_or("string"),
        look["optional"] == true,
        reference,
        text("pattern"),
        number("minimum"),
        number("maximum"),
        length("minLength"),
        length("maxLength"),
        values,
        text("requires"),
        look["default_key"] == true,
    )
}

fn all_published(looks: &Json) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for (name, look) in looks.as_object().unwrap() {
        match look["indexed"].as_object() {
            Some(index) => {
                for n in 0..=index["max"].as_u64().unwrap() {
                    lines.insert(format!("{}{n}", index["prefix"].as_str().unwrap()), published(look));
                }
            }
            None => drop(lines.insert(name.clone(), published(look))),
        }
    }
    lines
}

fn difference(at: &str, ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differs = names.into_iter().filter(|n| ours.get(*n) != theirs.get(*n));
    differs.map(|n| format!("{at} {n}\n  ours   {:?}\n  theirs {:?}", ours.get(n), theirs.get(n))).collect()
}

#[test]
fn agrees_with_the_published_schema() {
    let mut wrong = Vec::new();
    for (generation, file) in [(Generation::V9, "pve-9.1.json"), (Generation::V8, "pve-8.4.json")] {
        let Some(theirs) = facts(file) else { return };
        let schema = Schema::new(generation).unwrap();
        assert!(schema.routes.len() > 80, "{}", schema.routes.len());
        let endpoints = theirs["endpoints"].as_array().unwrap();
        for route in &schema.routes {
            let at = format!("{generation:?} {} {}", route.method, route.path);
            let Some(there) = endpoints
                .iter()
                .find(|e| e["method"] == route.method.as_str() && e["path"] == route.path.as_str())
            else {
                wrong.push(format!("{at}: no such endpoint"));
                continue;
            };
            let ours: BTreeMap<_, _> = route.params.iter().map(|(n, l)| (n.clone(), line(l))).collect();
            wrong.extend(difference(&at, &ours, &all_published(&there["parameters"])));
            let upid = there["upid"].as_str().unwrap_or("no") == "yes";
            if route.upid != upid || route.ticket_only == there["allowtoken"].as_bool().unwrap() {
                wrong.push(format!("{at}: upid {} token {}", there["upid"], there["allowtoken"]));
            }
            let check = &there["permissions"]["check"];
            if let (Some("perm"), Some(path), Some(list)) =
                (check[0].as_str(), check[1].as_str(), check[2].as_array())
            {
                let right = route.right.as_ref().unwrap_or_else(|| panic!("{at}: needs {check}"));
                let privileges: Vec<_> = list.iter().map(|p| p.as_str().unwrap().to_owned()).collect();
                let any = check[3] == "any";
                if right.path != path || (any && !right.any && privileges.len() > 1) {
                    wrong.push(format!("{at}: {right:?} against {check}"));
                }
                if right.privileges.iter().any(|p| !privileges.contains(p))
                    || right.privileges.len() < privileges.len()
                {
                    wrong.push(format!("{at}: {right:?} against {check}"));
                }
            }
        }
        for (name, props) in &schema.props {
            let second = format!("{name}#2");
            let tables = &theirs["property_strings"];
            let there = [&second, name, &format!("fmt.{name}")].into_iter().find_map(|n| {
                let old = n.ends_with("#2") && generation == Generation::V9;
                if old { None } else { tables.get(n.as_str()) }
            });
            let Some(there) = there else { continue };
            let ours: BTreeMap<_, _> = props.iter().map(|(n, l)| (n.clone(), line(l))).collect();
            let mut theirs = all_published(there);
            // The list of CPU models for display is long and takes part in nothing here.
            theirs.remove("reported-model");
            wrong.extend(difference(&format!("{generation:?} {name}"), &ours, &theirs));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}
