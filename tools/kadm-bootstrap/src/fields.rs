//! The fields of a KubeletConfiguration: those wanted, those that are there, and whether these mean the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::want::Want;

/// The fields of ours that an older cluster is brought to; a change of `cgroupDriver` would need every pod of a node anew.
const OURS: [&str; 2] = ["rotateCertificates", "serverTLSBootstrap"];

/// Every field that the document or this tool sets, ours over the operator's.
pub fn wanted(want: &Want) -> BTreeMap<String, Value> {
    let ours = OURS.iter().map(|name| ((*name).to_owned(), Value::Bool(true)));
    want.kubelet.clone().into_iter().chain(ours).collect()
}

/// The fields in the text of a KubeletConfiguration; none when it cannot be read. What may hold a secret is left out.
pub fn read(text: &str) -> BTreeMap<String, Value> {
    let root = serde_saphyr::from_str::<BTreeMap<String, Value>>(text).unwrap_or_default();
    root.into_iter().filter(|(name, _)| name != "staticPodURLHeader").collect()
}

/// The names of the fields that a ConfigMap notes.
pub fn noted(map: &Value) -> BTreeSet<String> {
    let names = map["data"]["fields"].as_str().unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

/// The names of the wanted fields that are not there as they should be.
pub fn differing(wanted: &BTreeMap<String, Value>, there: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let differs = |name: &String, value: &Value| there.get(name).is_none_or(|t| !means(value, t));
    wanted.iter().filter(|(name, value)| differs(name, value)).map(|(name, _)| name.clone()).collect()
}

/// Whether what is there means what is wanted: kubeadm writes durations in its own way (`120s` as `2m0s`), and in an
/// object also each field of its Go type that has no value.
fn means(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted.iter().all(|(k, v)| there.get(k).is_some_and(|t| means(v, t)))
                && there.iter().all(|(k, t)| wanted.contains_key(k) || is_zero(t))
        }
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(w, t)| means(w, t))
        }
        (Value::String(wanted), Value::String(there)) => {
            wanted == there || duration(wanted).is_some_and(|w| duration(there) == Some(w))
        }
        (Value::Number(wanted), Value::Number(there)) => wanted.as_f64() == there.as_f64(),
        _ => wanted == there,
    }
}

/// What Go writes for a field without a value.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => matches!(s.as_str(), "" | "0" | "0s"),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.values().all(is_zero),
        Value::Bool(true) => false,
    }
}

/// A duration of Go in nanoseconds, such as `1h30m` or `1.5s`.
fn duration(text: &str) -> Option<u128> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (count, tail) = rest.split_at(number);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let nanoseconds = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += count.parse::<f64>().ok()? * nanoseconds;
        rest = tail;
    }
    (!text.is_empty()).then_some(total as u128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubeadm_makes_of_a_value_means_the_same() {
        let same = [
            (json!("120s"), json!("2m0s")),
            (json!("1.5h"), json!("1h30m0s")),
            (
                json!({ "verbosity": 3 }),
                json!({ "verbosity": 3, "flushFrequency": 0, "options": { "json": { "infoBufferSize": "0" } } }),
            ),
            (json!([{ "reservedMemory": 1 }]), json!([{ "reservedMemory": 1.0 }])),
            (json!({ "memory.available": "5%" }), json!({ "memory.available": "5%" })),
        ];
        for (wanted, there) in same {
            assert!(means(&wanted, &there), "{wanted} {there}");
        }
        let other = [
            (json!("120s"), json!("2m1s")),
            (json!("100Mi"), json!("200Mi")),
            (json!({ "a": 1 }), json!({ "a": 1, "b": 2 })),
            (json!({ "a": 1 }), json!({})),
            (json!(["a"]), json!(["a", "b"])),
            (json!(false), json!(0)),
        ];
        for (wanted, there) in other {
            assert!(!means(&wanted, &there), "{wanted} {there}");
        }
        assert_eq!((duration(""), duration("10"), duration("10x")), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s).{0,200}", one in "[0-9.hmsnuµ]{0,20}") {
            let _ = (read(&text), duration(&one));
        }
    }
}
