//! The files of a set as others read them: `kubectl kustomize` must give the same objects back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

use kube_apply::ManifestSet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

const OBJECTS: &str = r##"
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: strings, namespace: a}
data:
  "yes": "yes"
  octal: "0644"
  float: "1e3"
  "null": "null"
  time: "2026-01-01"
  sexagesimal: "1:30"
  empty: ""
  script: |
    #!/bin/sh
    set -e
    	echo "tab: $1"   # trailing

    exit 0
  keep: "a\nb"
  strip: "  leading\n\n\n"
  long: "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
  quote: "it's \"both\" and \\ back"
  unicode: "grüße \u2028 \u0007"
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: a, annotations: {n/number: "1", n/bool: "true"}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: c
        image: quay.io/x/web:1
        args: ["--a=b", "-", "--", "- c", "{x}", "*", "&a", "!t", "%", "@", "`"]
        resources: {limits: {cpu: 100m, memory: 1Gi}}
      volumes:
      - name: s
        secret: {secretName: x, defaultMode: 0644}
"##;

/// Kinds and names with their objects; kustomize may order files as it likes.
fn by_name(text: &str) -> BTreeMap<String, Value> {
    let mut set = ManifestSet::new("kubeline-test");
    set.add_yaml("kustomize", text).unwrap();
    set.objects().iter().map(|object| (object.id().to_string(), object.value().clone())).collect()
}

#[test]
fn kubectl_reads_what_we_write() {
    if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
        println!("skipped: there is no kubectl on this machine");
        return;
    }
    let mut set = ManifestSet::new("kubeline-test");
    set.add_yaml("objects", OBJECTS).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in set.files().unwrap() {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = Command::new("kubectl").arg("kustomize").arg(folder.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let read = by_name(&String::from_utf8(output.stdout).unwrap());
    for object in set.objects() {
        assert_eq!(read.get(&object.id().to_string()), Some(object.value()), "{errors}");
    }
    assert_eq!(read.len(), set.objects().len() + 1, "the parent is in the files, too");
}
