//! Values as Proxmox sends them: numbers and booleans come as numbers or as text.

use serde_json::Value;

/// A field as text, whatever its JSON type; `None` when it is missing, null or no scalar.
pub fn text(of: &Value, field: &str) -> Option<String> {
    match of.get(field)? {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(u8::from(*b).to_string()),
        _ => None,
    }
}

/// A field as a whole number.
pub fn number(of: &Value, field: &str) -> Option<u64> {
    let text = text(of, field)?;
    text.parse().ok().or_else(|| text.parse::<f64>().ok().filter(|n| *n >= 0.0).map(|n| n as u64))
}

/// A field as a boolean; what is missing is false.
pub fn flag(of: &Value, field: &str) -> bool {
    matches!(text(of, field).as_deref(), Some("1" | "on" | "yes" | "true"))
}

/// The items of a list; nothing for anything else.
pub fn list(of: &Value) -> &[Value] {
    of.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_come_either_way() {
        let value = json!({ "a": "102", "b": 102, "c": 1, "d": "1", "e": 0, "f": null, "g": 1.5 });
        assert_eq!(
            (number(&value, "a"), number(&value, "b"), number(&value, "f")),
            (Some(102), Some(102), None)
        );
        assert_eq!((flag(&value, "c"), flag(&value, "d"), flag(&value, "e")), (true, true, false));
        assert_eq!(number(&value, "g"), Some(1));
    }
}
