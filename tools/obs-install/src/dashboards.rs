//! Grafana's dashboards, by file name.

use std::collections::BTreeMap;

/// All of them; each is a file of Grafana's JSON model.
pub(crate) fn all(with_logs: bool) -> BTreeMap<&'static str, &'static str> {
    let mut all = BTreeMap::from([
        ("cluster.json", include_str!("dashboards/cluster.json")),
        ("nodes.json", include_str!("dashboards/nodes.json")),
    ]);
    if with_logs {
        all.insert("logs.json", include_str!("dashboards/logs.json"));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn dashboards_are_json_with_ids_of_their_own() {
        let all = super::all(true);
        let mut uids = std::collections::BTreeSet::new();
        for (name, text) in &all {
            let value: serde_json::Value =
                serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(uids.insert(value["uid"].as_str().unwrap().to_owned()), "{name}");
            assert!(!value["panels"].as_array().unwrap().is_empty(), "{name}");
        }
    }
}
