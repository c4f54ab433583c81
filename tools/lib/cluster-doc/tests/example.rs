//! The example documents are read, and their machines are what the manual says.

use std::fs;
use std::path::{Path, PathBuf};

use cluster_doc::{Document, Section};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

#[test]
fn our_example() {
    let doc = Document::parse(fs::read(workspace().join("tests/clusters/ha.json")).unwrap()).unwrap();
    let spec = doc.spec(Section::ALL).unwrap_or_else(|e| panic!("{e}"));
    assert!(doc.warnings(&spec).is_empty());
    let machines = doc.machines(&spec);
    let lines: Vec<String> =
        machines.iter().map(|m| format!("{} {} {}", m.name, m.role, m.address)).collect();
    assert_eq!(
        lines,
        [
            "prod-lb-1 load-balancer 10.30.0.11",
            "prod-lb-2 load-balancer 10.30.0.12",
            "prod-lb-3 load-balancer 10.30.0.13",
            "prod-cp-1 control-plane 10.30.0.21",
            "prod-cp-2 control-plane 10.30.0.22",
            "prod-cp-3 control-plane 10.30.0.23",
            "prod-prod-1 worker 10.30.0.31",
            "prod-prod-2 worker 10.30.0.32",
            "prod-prod-3 worker 10.30.0.33",
            "prod-prod-4 worker 10.30.0.34",
            "prod-nonprod-1 worker 10.30.0.41",
            "prod-nonprod-2 worker 10.30.0.42",
            "prod-nfs-1 nfs 10.30.0.60",
        ]
    );
}

#[test]
fn the_design_s_example() {
    let facts = std::env::var_os("KUBELINE_FACTS").map(PathBuf::from);
    let shared = facts.unwrap_or_else(|| workspace().join("../shared/facts")).join("../examples/ha.json");
    let Ok(text) = fs::read(&shared) else {
        println!("skipped: the design's example is not beside this checkout");
        return;
    };
    let doc = Document::parse(text).unwrap();
    let spec = doc.spec(Section::ALL).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(doc.machines(&spec).len(), 13);
}

#[test]
fn a_status_is_kept_and_one_s_own_replaced() {
    let text = r#"{"kind":"Cluster","apiVersion":"kubeline/v1","spec":{},
        "status":{"other":{"z":1,"a":[{"d":1,"c":2}]},"mine":{"old":true}},"x-note":"é"}"#;
    let doc = Document::parse(text).unwrap();
    let out = doc.with_status("mine", serde_json::json!({"b": {"y": 1, "x": 2}, "a": 0}));
    let want = concat!(
        "{\n  \"kind\": \"Cluster\",\n  \"apiVersion\": \"kubeline/v1\",\n  \"spec\": {},\n  \"status\": {\n",
        "    \"other\": {\n      \"z\": 1,\n      \"a\": [\n        {\n          \"d\": 1,\n          \"c\": 2\n        }\n      ]\n    },\n",
        "    \"mine\": {\n      \"a\": 0,\n      \"b\": {\n        \"x\": 2,\n        \"y\": 1\n      }\n    }\n  },\n  \"x-note\": \"é\"\n}\n"
    );
    assert_eq!(out, want);
    let again = Document::parse(&out)
        .unwrap()
        .with_status("mine", serde_json::json!({"a": 0, "b": {"x": 2, "y": 1}}));
    assert_eq!(again, out);
    assert!(!doc.without_status("mine").contains("mine"));
}

#[test]
fn values_and_earlier_status() {
    let frame = r#""kind":"Cluster","apiVersion":"kubeline/v1","spec":{}"#;
    let mut doc =
        Document::parse(format!(r#"{{{frame},"metadata":{{"name":"a"}},"status":{{"x":1}}}}"#)).unwrap();
    assert_eq!(doc.at("/metadata/name").unwrap(), "a");
    assert_eq!(doc.at("/kind").unwrap(), "Cluster");
    assert!(doc.at("/metadata/none").is_none() && doc.at("metadata").is_none() && doc.at("").is_none());
    let earlier = Document::parse(format!(r#"{{{frame},"status":{{"x":2,"y":{{"z":3}}}}}}"#)).unwrap();
    doc.take_status(&earlier);
    assert_eq!(doc.at("/status/x").unwrap(), 1);
    assert_eq!(doc.at("/status/y/z").unwrap(), 3);
}
