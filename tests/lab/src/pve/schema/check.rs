//! The validator: the rules and the texts of Proxmox's `PVE::JSONSchema` (pve-common).

use std::collections::BTreeMap;

use super::{Kind, Look, Looks, Schema, formats};

/// What is wrong, by parameter.
pub type Errors = BTreeMap<String, String>;

/// A parameter as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One text.
    One(String),
    /// A list: a repeated key, or an array in a JSON body.
    Many(Vec<String>),
}

/// Parameters by name.
pub type Values = BTreeMap<String, Value>;

impl Value {
    /// The text; a list joined by commas.
    pub fn text(&self) -> String {
        match self {
            Value::One(text) => text.clone(),
            Value::Many(list) => list.join(","),
        }
    }
}

/// Checks all parameters of a request; lists sent for text parameters of a list format are joined first.
pub fn verify(schema: &Schema, params: &Looks, values: &mut Values) -> Errors {
    for (name, value) in values.iter_mut() {
        let Some(look) = params.get(name) else { continue };
        let list = look.format.as_ref().is_some_and(|f| f.ends_with("-list"));
        match (look.kind, &*value) {
            (Kind::Arr, Value::One(one)) => *value = Value::Many(vec![one.clone()]),
            (Kind::Str, Value::Many(many)) if list => *value = Value::One(many.join(",")),
            _ => {}
        }
    }
    let mut errors = Errors::new();
    object(schema, "", params, values, &mut errors);
    errors
}

fn object(schema: &Schema, path: &str, looks: &Looks, values: &Values, errors: &mut Errors) {
    let full = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, look) in looks {
        let at = full(name);
        match values.get(name) {
            None if look.optional || look.alias.is_some() => {}
            None => add(errors, at, "property is missing and it is not optional".into()),
            Some(value) => {
                if let Err(why) = property(schema, &at, look, value) {
                    add(errors, at, why);
                }
            }
        }
    }
    for name in values.keys() {
        let at = full(name);
        match looks.get(name) {
            Some(look) => {
                if let Some(needs) = look.needs.as_ref().filter(|n| !values.contains_key(*n)) {
                    add(errors, full(needs), format!("missing property required by '{at}'"));
                }
            }
            None => add(
                errors,
                at,
                "property is not defined in schema and the schema does not allow additional properties"
                    .into(),
            ),
        }
    }
}

fn add(errors: &mut Errors, at: String, why: String) {
    errors.entry(at).and_modify(|old| *old = format!("{old}\n{why}")).or_insert(why);
}

fn property(schema: &Schema, path: &str, look: &Look, value: &Value) -> Result<(), String> {
    let text = match (look.kind, value) {
        (Kind::Arr, Value::Many(_)) => return Ok(()),
        (Kind::Arr, Value::One(_)) => return Err("type check ('array') failed".into()),
        (_, Value::Many(_)) => return Err("type check ('string') failed - got ARRAY".into()),
        (_, Value::One(text)) => text,
    };
    let (right, kind) = match look.kind {
        Kind::Bool => (text == "0" || text == "1", "boolean"),
        Kind::Int => (integer(text), "integer"),
        Kind::Num => (number(text), "number"),
        Kind::Str | Kind::Arr => (true, "string"),
    };
    if !right {
        return Err(format!("type check ('{kind}') failed - got '{text}'"));
    }
    if let Some(format) = &look.format {
        formats::check(schema, path, format, text).map_err(|why| format!("invalid format - {why}"))?;
    }
    if let Some(props) = &look.props {
        property_string(schema, path, props, text).map_err(|why| format!("invalid format - {why}"))?;
    }
    if let Some((_, pattern)) = &look.pattern
        && !pattern.is_match(text)
    {
        return Err("value does not match the regex pattern".into());
    }
    let length = text.chars().count();
    if let Some(most) = look.max_len.filter(|most| length > *most) {
        return Err(format!("value may only be {most} characters long"));
    }
    if let Some(fewest) = look.min_len.filter(|fewest| length < *fewest) {
        return Err(format!("value must be at least {fewest} characters long"));
    }
    let size: f64 = text.parse().unwrap_or(0.0);
    if let Some(most) = look.max.filter(|most| size > *most) {
        return Err(format!("value must have a maximum value of {most}"));
    }
    if let Some(least) = look.min.filter(|least| size < *least) {
        return Err(format!("value must have a minimum value of {least}"));
    }
    match &look.values {
        Some(values) if !values.contains(text) => {
            Err(format!("value '{text}' does not have a value in the enumeration '{}'", values.join(", ")))
        }
        _ => Ok(()),
    }
}

fn integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

fn number(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    body.starts_with(|c: char| c.is_ascii_digit() || c == '.') && body != "." && body.parse::<f64>().is_ok()
}

/// Parses and checks `key=value,key=value` against a property string's keys. Aliases are resolved and
/// booleans become `0` and `1`.
///
/// # Errors
/// Proxmox's own text.
pub fn property_string(
    schema: &Schema,
    path: &str,
    props: &str,
    text: &str,
) -> Result<BTreeMap<String, String>, String> {
    let looks = schema.props.get(props).ok_or_else(|| format!("unknown property string '{props}'\n"))?;
    let default = looks.iter().find(|(_, look)| look.default_key).map(|(name, _)| name);
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for part in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (mut key, value) = match part.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key.to_owned(), value.to_owned()),
            Some(_) => return Err("missing key in comma-separated list property\n".into()),
            None => match default {
                Some(default) if found.contains_key(default) => {
                    return Err(format!("duplicate key in comma-separated list property: {default}\n"));
                }
                Some(default) => (default.clone(), part.to_owned()),
                None => return Err("value without key, but schema does not define a default key\n".into()),
            },
        };
        if found.contains_key(&key) {
            return Err(format!("duplicate key in comma-separated list property: {key}\n"));
        }
        if let Some(look) = looks.get(&key)
            && let Some(alias) = &look.alias
        {
            if let Some(key_alias) = &look.key_alias {
                if found.contains_key(key_alias) {
                    return Err(format!("key alias '{key_alias}' is already defined\n"));
                }
                found.insert(key_alias.clone(), key.clone());
            }
            key = alias.clone();
        }
        let boolean = looks.get(&key).is_some_and(|l| l.kind == Kind::Bool);
        found.insert(key, if boolean { boolean_text(&value) } else { value });
    }
    let values: Values = found.iter().map(|(k, v)| (k.clone(), Value::One(v.clone()))).collect();
    let mut errors = Errors::new();
    object(schema, path, looks, &values, &mut errors);
    if errors.is_empty() {
        return Ok(found);
    }
    let lines: String = errors.iter().map(|(at, why)| format!("{at}: {why}\n")).collect();
    Err(format!("format error\n{lines}"))
}

fn boolean_text(value: &str) -> String {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => "1".into(),
        "0" | "off" | "no" | "false" => "0".into(),
        _ => value.to_owned(),
    }
}
