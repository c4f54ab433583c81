//! Text to JSON: bounded, without duplicate keys, with line and column in each refusal.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{Pointer, Refusals};

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Reads bytes as one JSON value.
pub(crate) fn parse(bytes: &[u8]) -> Result<(String, Value), Refusals> {
    if bytes.len() > MAX_BYTES {
        return Err(refuse(format!(
            "is larger than {} MiB; a cluster document is a few KiB: is this the right file?",
            MAX_BYTES / (1024 * 1024)
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let (line, column) = crate::locate::line_and_column(&bytes[..e.valid_up_to()]);
        let byte = bytes[e.valid_up_to()];
        let mut all = Refusals::default();
        all.add_at((line, column), format!("byte 0x{byte:02x} is no UTF-8; save the document as UTF-8 text"));
        all
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Refusals::empty_input());
    }
    let mut from = serde_json::Deserializer::from_str(text);
    let value = Unique { at: Pointer::root() }.deserialize(&mut from);
    let value = value.and_then(|v| from.end().map(|()| v)).map_err(|e| syntax(&e))?;
    if !value.is_object() {
        return Err(refuse(
            "is no JSON object; a document begins with {\"apiVersion\": \"kubeline/v1\", ...".into(),
        ));
    }
    Ok((text.to_owned(), value))
}

fn refuse(message: String) -> Refusals {
    Refusals::one(Pointer::root(), message)
}

fn syntax(error: &serde_json::Error) -> Refusals {
    let said = error.to_string();
    let message = said.rsplit_once(" at line ").map_or(said.as_str(), |(message, _)| message);
    let message = match message {
        m if error.is_eof() => format!("ends too early ({m}); was the stage before interrupted?"),
        m if m.starts_with("recursion limit") => "is nested too deeply (128 levels at most)".to_owned(),
        m if m.starts_with("duplicate key") => m.to_owned(),
        m => format!("is no JSON: {m}"),
    };
    let mut all = Refusals::default();
    all.add_at((error.line().max(1), error.column().max(1)), message);
    all
}

/// Builds a [`Value`], refusing an object that has a key twice.
struct Unique {
    at: Pointer,
}

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Unique { at: self.at.index(list.len()) })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let at = self.at.key(&key);
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key: {at} stands twice; keep one of them")));
            }
            let value = access.next_value_seed(Unique { at })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
