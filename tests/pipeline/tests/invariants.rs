//! The rules between crates, read from `cargo metadata`.

#![allow(clippy::unwrap_used)] // A test says what it expects.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

const TOOLS: [&str; 8] = [
    "pve-vm",
    "vip-keepalive",
    "lb-render",
    "kadm-bootstrap",
    "cni-install",
    "ingress-install",
    "nfs-provision",
    "obs-install",
];

/// Each workspace crate with its dependencies; development ones only when asked for.
fn dependencies(development: bool) -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|p| {
            let all = p["dependencies"].as_array().unwrap();
            let wanted = all.iter().filter(|d| development || d["kind"] != "dev");
            (text(&p["name"]), wanted.map(|d| text(&d["name"])).collect())
        })
        .collect()
}

#[test]
fn the_eight_tools_are_there_and_know_not_one_another() {
    let all = dependencies(false);
    for tool in TOOLS {
        let known = all.get(tool).unwrap_or_else(|| panic!("{tool} is no member"));
        let others: Vec<_> = TOOLS.iter().filter(|t| known.contains(**t)).collect();
        assert!(others.is_empty(), "{tool} depends on {others:?}");
        assert!(known.contains("stage"), "{tool} does without stage");
        assert!(!known.contains("lab"), "{tool} ships the lab");
    }
}

#[test]
fn the_contract_is_pure_and_the_libraries_strangers() {
    let all = dependencies(false);
    let ours: BTreeSet<&String> = all.keys().collect();
    for pure in ["tokio", "reqwest", "kube", "russh", "hyper"] {
        assert!(!all["cluster-doc"].contains(pure), "cluster-doc does I/O by {pure}");
        assert!(!all["render"].contains(pure), "render does I/O by {pure}");
    }
    for stranger in ["cluster-doc", "render", "remote", "kube-apply"] {
        let known: Vec<_> = all[stranger].iter().filter(|d| ours.contains(d)).collect();
        assert!(known.is_empty(), "{stranger} knows {known:?}");
    }
}

#[test]
fn the_lab_shares_no_code_with_what_it_tests() {
    let all = dependencies(true);
    let known: Vec<_> = all["lab"].iter().filter(|d| all.contains_key(*d)).collect();
    assert!(known.is_empty(), "the lab depends on {known:?}");
}

#[test]
fn no_crate_is_called_common() {
    let all = dependencies(false);
    let vague: Vec<_> =
        all.keys().filter(|n| ["common", "util", "utils", "shared", "core"].contains(&n.as_str())).collect();
    assert!(vague.is_empty(), "{vague:?} say nothing of what they hold");
}

#[test]
fn the_fixed_crates_are_in_use() {
    let all = dependencies(false);
    let used: BTreeSet<&String> = all.values().flatten().collect();
    for fixed in ["clap", "serde_json", "tokio", "reqwest", "kube", "minijinja", "russh", "nom"] {
        assert!(used.iter().any(|d| *d == fixed), "{fixed} is not in use");
    }
}
