//! Label and field selectors.

use serde_json::Value;

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Requirement {
    fn key(&self) -> &str {
        match self {
            Requirement::In(key, _)
            | Requirement::NotIn(key, _)
            | Requirement::Exists(key)
            | Requirement::Absent(key) => key,
        }
    }
}

/// A parsed selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Selector(Vec<Requirement>);

impl Selector {
    /// From a query parameter, such as `app=x,tier in (a,b),!old`.
    pub(crate) fn parse(text: &str) -> Result<Selector, String> {
        let mut all = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (part, tail) = cut(rest);
            rest = tail;
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            let key = |t: &str| t.trim().to_owned();
            let values = |t: &str| -> Vec<String> {
                t.trim()
                    .trim_start_matches('(')
                    .trim_end_matches(')')
                    .split(',')
                    .map(|v| v.trim().to_owned())
                    .collect()
            };
            all.push(if let Some((k, v)) = part.split_once("!=") {
                Requirement::NotIn(key(k), vec![key(v)])
            } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
                Requirement::In(key(k), vec![key(v)])
            } else if let Some((k, v)) = part.split_once(" notin ") {
                Requirement::NotIn(key(k), values(v))
            } else if let Some((k, v)) = part.split_once(" in ") {
                Requirement::In(key(k), values(v))
            } else if let Some(k) = part.strip_prefix('!') {
                Requirement::Absent(key(k))
            } else if part.contains(' ') {
                return Err(format!(
                    "unable to parse requirement: found '{part}', expected: in, notin, =, ==, !=, gt, lt"
                ));
            } else {
                Requirement::Exists(key(part))
            });
        }
        Ok(Selector(all))
    }

    /// From a `LabelSelector` object.
    pub(crate) fn of(selector: &Value) -> Selector {
        let mut all = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            all.push(Requirement::In(key.clone(), vec![value.as_str().unwrap_or_default().to_owned()]));
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            all.push(requirement(expression));
        }
        Selector(all)
    }

    /// From a plain map, as Services have.
    pub(crate) fn of_map(map: &Value) -> Selector {
        Selector(
            map.as_object()
                .into_iter()
                .flatten()
                .map(|(k, v)| Requirement::In(k.clone(), vec![v.as_str().unwrap_or_default().to_owned()]))
                .collect(),
        )
    }

    /// From node selector terms' `matchExpressions`.
    pub(crate) fn of_expressions(list: &Value) -> Selector {
        Selector(list.as_array().into_iter().flatten().map(requirement).collect())
    }

    /// True when these labels (an object of strings) match.
    pub(crate) fn matches(&self, labels: &Value) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str).map(str::to_owned))
    }

    /// Refuses fields that the API does not select this kind by (kubernetes.io, "Field Selectors").
    pub(crate) fn selectable(&self, kind: &str) -> Result<(), String> {
        let more: &[&str] = match kind {
            "Pod" => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.podIPs",
                "status.nominatedNodeName",
            ],
            "Event" => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "involvedObject.apiVersion",
                "involvedObject.resourceVersion",
                "involvedObject.fieldPath",
                "reason",
                "reportingComponent",
                "source",
                "type",
            ],
            "Secret" => &["type"],
            "Namespace" => &["status.phase"],
            "Node" => &["spec.unschedulable"],
            "ReplicaSet" | "ReplicationController" => &["status.replicas"],
            "Job" => &["status.successful"],
            "CertificateSigningRequest" => &["spec.signerName"],
            _ => &[],
        };
        let known = |key: &str| matches!(key, "metadata.name" | "metadata.namespace") || more.contains(&key);
        match self.0.iter().map(Requirement::key).find(|key| !known(key)) {
            None => Ok(()),
            Some(key) if more.is_empty() => Err(format!(
                "\"{key}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )),
            Some(key) => Err(format!("field label not supported: {key}")),
        }
    }

    /// True when the fields of an object match, by dotted path.
    pub(crate) fn matches_fields(&self, object: &Value) -> bool {
        self.matches_with(|key| {
            let value = key.split('.').try_fold(object, |at, part| at.get(part));
            Some(match value {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            })
        })
    }

    fn matches_with(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        self.0.iter().all(|r| match r {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.contains(&v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| !values.contains(&v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::Absent(key) => get(key).is_none(),
        })
    }

    /// True when there is nothing to match.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn requirement(expression: &Value) -> Requirement {
    let key = expression["key"].as_str().unwrap_or_default().to_owned();
    let values = expression["values"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match expression["operator"].as_str() {
        Some("In") => Requirement::In(key, values),
        Some("NotIn") => Requirement::NotIn(key, values),
        Some("DoesNotExist") => Requirement::Absent(key),
        _ => Requirement::Exists(key),
    }
}

// At the first comma outside parentheses.
fn cut(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return (&text[..i], &text[i + 1..]),
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selects() {
        let s = Selector::parse("app=x,tier in (a, b),!old,new").unwrap();
        assert!(s.matches(&json!({"app": "x", "tier": "b", "new": ""})));
        assert!(!s.matches(&json!({"app": "x", "tier": "c", "new": ""})));
        assert!(!s.matches(&json!({"app": "x", "tier": "a", "new": "", "old": "1"})));
        let f = Selector::parse("metadata.name=a,spec.nodeName!=n").unwrap();
        assert!(f.matches_fields(&json!({"metadata": {"name": "a"}, "spec": {}})));
        assert!(Selector::parse("a b").is_err());
        assert!(f.selectable("Pod").is_ok());
        assert_eq!(f.selectable("Node"), Err("field label not supported: spec.nodeName".into()));
        assert!(f.selectable("Service").unwrap_err().contains("is not a known field selector"));
    }
}
