//! Typed reading of JSON that reports every mistake, not only the first.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::{Pointer, Refusals};

/// A value and where it stands.
pub struct Node<'a> {
    /// The value.
    pub value: &'a Value,
    /// Its place.
    pub at: Pointer,
}

/// A type that is read from the document.
pub trait FromDoc: Sized {
    /// Reads a value; on a mistake notes it in `wrong` and gives `None`.
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self>;

    /// What stands for a missing key; `None` when the key must be there.
    fn missing() -> Option<Self> {
        None
    }
}

impl<'a> Node<'a> {
    /// Notes that this is not what was expected.
    pub fn refuse<T>(&self, wrong: &mut Refusals, message: impl Into<String>) -> Option<T> {
        wrong.add(self.at.clone(), message);
        None
    }

    /// The value as it is shown in a refusal, shortened.
    pub fn shown(&self) -> String {
        let text = match self.value {
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
            other => other.to_string(),
        };
        match text.char_indices().nth(60) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    }

    /// The fields of an object; notes each field that is not in `known`.
    pub fn fields(&self, known: &[&str], wrong: &mut Refusals) -> Option<Fields<'a>> {
        let Value::Object(map) = self.value else {
            return self.refuse(wrong, format!("{} is no object; write {{ ... }}", self.shown()));
        };
        let known: Vec<String> = known.iter().map(|k| camel(k)).collect();
        for key in map.keys().filter(|k| !k.starts_with("x-") && !known.contains(k)) {
            let hint = nearest(key, known.iter().map(String::as_str))
                .map(|near| format!("; did you mean \"{near}\"?"))
                .unwrap_or_else(|| format!("; known here: {}", known.join(", ")));
            wrong.add(self.at.key(key), format!("unknown field{hint}"));
        }
        Some(Fields { map, at: self.at.clone() })
    }
}

/// The fields of one object.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: Pointer,
}

impl Fields<'_> {
    /// Reads a field that must be there, unless its type has a value for a missing one.
    pub fn field<T: FromDoc>(&self, name: &str, wrong: &mut Refusals) -> Option<T> {
        let key = camel(name);
        match self.map.get(&key) {
            Some(value) => T::from_doc(&Node { value, at: self.at.key(&key) }, wrong),
            None => T::missing().or_else(|| {
                wrong.add(self.at.key(&key), "is missing");
                None
            }),
        }
    }

    /// Reads a field that has a default.
    pub fn field_or<T: FromDoc>(&self, name: &str, default: T, wrong: &mut Refusals) -> Option<T> {
        let key = camel(name);
        match self.map.get(&key) {
            Some(value) => T::from_doc(&Node { value, at: self.at.key(&key) }, wrong),
            None => Some(default),
        }
    }
}

/// `snake_case` as the document writes it: `camelCase`.
pub fn camel(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut upper = false;
    for c in name.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                out.extend(c.to_uppercase());
                upper = false;
            }
            c => out.push(c),
        }
    }
    out
}

/// The known word that a mistyped one most likely stands for.
pub fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|k| (strsim::damerau_levenshtein(&word.to_lowercase(), &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= (k.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

impl<T: FromDoc> FromDoc for Option<T> {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        T::from_doc(node, wrong).map(Some)
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromDoc> FromDoc for Box<T> {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        T::from_doc(node, wrong).map(Box::new)
    }
}

impl<T: FromDoc> FromDoc for Vec<T> {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        let Value::Array(list) = node.value else {
            return node.refuse(wrong, format!("{} is no list; write [ ... ]", node.shown()));
        };
        let read: Vec<Option<T>> = list
            .iter()
            .enumerate()
            .map(|(n, value)| T::from_doc(&Node { value, at: node.at.index(n) }, wrong))
            .collect();
        read.into_iter().collect()
    }

    fn missing() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<K: FromDoc + Ord, V: FromDoc> FromDoc for BTreeMap<K, V> {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        let Value::Object(map) = node.value else {
            return node.refuse(wrong, format!("{} is no object; write {{ ... }}", node.shown()));
        };
        let mut out = BTreeMap::new();
        let mut whole = true;
        for (key, value) in map {
            let name = Value::String(key.clone());
            let k = K::from_doc(&Node { value: &name, at: node.at.key(key) }, wrong);
            let v = V::from_doc(&Node { value, at: node.at.key(key) }, wrong);
            match (k, v) {
                (Some(k), Some(v)) => drop(out.insert(k, v)),
                _ => whole = false,
            }
        }
        whole.then_some(out)
    }

    fn missing() -> Option<Self> {
        Some(BTreeMap::new())
    }
}

impl FromDoc for String {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        match node.value {
            Value::String(s) if s.chars().any(char::is_control) => {
                node.refuse(wrong, "holds a control character; write plain text on one line")
            }
            Value::String(s) => Some(s.clone()),
            _ => node.refuse(wrong, format!("{} is no text; write it in double quotes", node.shown())),
        }
    }
}

impl FromDoc for bool {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        match node.value {
            Value::Bool(b) => Some(*b),
            _ => node.refuse(wrong, format!("{} is neither true nor false", node.shown())),
        }
    }
}

impl FromDoc for u32 {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        let number = node.value.as_u64().and_then(|n| u32::try_from(n).ok());
        number.or_else(|| {
            node.refuse(wrong, format!("{} is no whole number from 0 to 4294967295", node.shown()))
        })
    }
}

/// Gathers the schema of an object field by field.
pub struct ObjectSchema {
    description: String,
    properties: Map<String, Value>,
    required: Vec<String>,
}

impl ObjectSchema {
    /// Begins with the object's description.
    pub fn new(description: &str) -> ObjectSchema {
        ObjectSchema { description: tidy(description), properties: Map::new(), required: Vec::new() }
    }

    /// Adds a field; `default` is shown, and a field without one and without a value for a missing key is required.
    pub fn field<T: JsonSchema + FromDoc>(
        &mut self,
        generator: &mut SchemaGenerator,
        name: &str,
        description: &str,
        default: Option<Value>,
    ) {
        let mut schema = generator.subschema_for::<T>().to_value();
        // A description beside `$ref` is allowed in 2020-12 and wins over the type's own.
        if let Value::Object(map) = &mut schema {
            map.insert("description".into(), tidy(description).into());
            if let Some(default) = &default {
                map.insert("default".into(), default.clone());
            }
        }
        let key = camel(name);
        if default.is_none() && T::missing().is_none() {
            self.required.push(key.clone());
        }
        self.properties.insert(key, schema);
    }

    /// The whole schema: strict but for keys that begin with `x-`.
    pub fn finish(self) -> Schema {
        let mut schema = json!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "patternProperties": { "^x-": true },
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// Doc comments as one paragraph of text.
pub fn tidy(doc: &str) -> String {
    doc.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Declares a section: a struct with its doc comments as help, its reader and its schema.
macro_rules! section {
    ($(#[doc = $doc:literal])* pub struct $name:ident {
        $( $(#[doc = $fdoc:literal])* $field:ident : $ty:ty $(= $default:expr)? ),* $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name { $( $(#[doc = $fdoc])* pub $field: $ty ),* }

        impl $crate::read::FromDoc for $name {
            fn from_doc(node: &$crate::read::Node<'_>, wrong: &mut $crate::Refusals) -> Option<Self> {
                let fields = node.fields(&[$(stringify!($field)),*], wrong)?;
                $( let $field: Option<$ty> = $crate::read::section!(@read fields, wrong, $field $(, $default)?); )*
                Some($name { $($field: $field?),* })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut object = $crate::read::ObjectSchema::new(concat!($($doc, "\n"),*));
                $( object.field::<$ty>(generator, stringify!($field), concat!($($fdoc, "\n"),*),
                    $crate::read::section!(@default $($default)?)); )*
                object.finish()
            }
        }
    };
    (@read $fields:ident, $wrong:ident, $field:ident) => { $fields.field(stringify!($field), $wrong) };
    (@read $fields:ident, $wrong:ident, $field:ident, $default:expr) => {
        $fields.field_or(stringify!($field), $default, $wrong)
    };
    (@default) => { None };
    (@default $default:expr) => { serde_json::to_value(&$default).ok() };
}

/// Declares a closed set of words.
macro_rules! choice {
    ($(#[doc = $doc:literal])* pub enum $name:ident { $( $(#[doc = $vdoc:literal])* $variant:ident = $word:literal ),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name { $( $(#[doc = $vdoc])* #[serde(rename = $word)] $variant ),* }

        impl $name {
            /// The word that stands for it in the document.
            pub fn word(self) -> &'static str {
                match self { $( $name::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.word()) }
        }

        impl $crate::read::FromDoc for $name {
            fn from_doc(node: &$crate::read::Node<'_>, wrong: &mut $crate::Refusals) -> Option<Self> {
                match node.value.as_str() {
                    $( Some($word) => Some($name::$variant), )*
                    other => {
                        let near = other.and_then(|o| $crate::read::nearest(o, [$($word),*].into_iter()));
                        let hint = near.map(|n| format!("did you mean \"{n}\"?"))
                            .unwrap_or_else(|| format!("one of: {}", [$($word),*].join(", ")));
                        node.refuse(wrong, format!("{} is not known here; {hint}", node.shown()))
                    }
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> { stringify!($name).into() }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "description": $crate::read::tidy(concat!($($doc, "\n"),*)),
                    "oneOf": [$({ "const": $word, "description": $crate::read::tidy(concat!($($vdoc, "\n"),*)) }),*]
                })
            }
        }
    };
}

pub(crate) use {choice, section};
