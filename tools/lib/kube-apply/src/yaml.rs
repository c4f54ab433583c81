//! YAML in and out, read as Kubernetes' own tools read it.

use serde_json::Value;

/// Reads all documents of a text, YAML or JSON; empty documents are left out.
pub(crate) fn read(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 20_000_000,
            max_nodes: 10_000_000,
            max_depth: 200,
        },
        emit_comments: false,
        // sigs.k8s.io/yaml, which kubectl reads with, takes 0644 as an octal number.
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let mut bytes = text.as_bytes();
    let mut documents = Vec::new();
    for document in serde_saphyr::read_with_options::<_, Value>(&mut bytes, options) {
        let document = document.map_err(|error| error.to_string())?;
        if !document.is_null() {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Writes one document; strings that a YAML 1.1 reader would take for something else are quoted.
pub(crate) fn write(value: &Value) -> Result<String, String> {
    let options = serde_saphyr::ser_options! {
        // No folding: long lines stay as they are, so that a diff shows what changed.
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn several_documents_and_empty_ones() {
        let found = read("# only a comment\n---\na: 1\n---\n---\nb: [x, 'y']\n").unwrap();
        assert_eq!(found, [json!({"a": 1}), json!({"b": ["x", "y"]})]);
        assert_eq!(read(" {\"a\": {\"b\": null}}").unwrap(), [json!({"a": {"b": null}})]);
        assert!(read("").unwrap().is_empty());
    }

    #[test]
    fn scalars_are_read_as_kubectl_reads_them() {
        let found = read("mode: 0644\non_: yes\nversion: \"1.10\"\nport: 8080\nempty:\n").unwrap();
        assert_eq!(
            found,
            [json!({"mode": 420, "on_": true, "version": "1.10", "port": 8080, "empty": null})]
        );
    }

    #[test]
    fn mistakes_name_line_and_column() {
        let error = read("a: 1\nb: [\n").unwrap_err();
        assert!(error.contains("line"), "{error}");
        assert!(read("a: 1\na: 2\n").is_err());
    }

    #[test]
    fn strings_that_look_like_something_else_survive() {
        for text in
            ["yes", "on", "y", "0644", "1e3", "null", "~", "1:30", "2026-01-01", "- a", "a: b", "#x", "", " "]
        {
            let value = json!({ "k": text, "list": [text] });
            assert_eq!(read(&write(&value).unwrap()).unwrap(), [value], "{text:?}");
        }
        let script =
            json!({"s": "#!/bin/sh\nset -e\n\techo \"$1\"\n", "t": "a\nb", "u": "a\n\n\n", "v": " lead\nx"});
        assert_eq!(read(&write(&script).unwrap()).unwrap(), [script]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~\n\t]{0,20}".prop_map(Value::from),
            "[a-zA-Z0-9._:/-]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9./_-]{1,10}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn what_is_written_is_read_back(value in any_json()) {
            let value = json!({ "data": value });
            prop_assert_eq!(read(&write(&value).unwrap()).unwrap(), [value]);
        }
    }
}
