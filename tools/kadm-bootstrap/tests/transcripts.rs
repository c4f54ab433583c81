//! The recorded words of a real kubeadm v1.36.2 and etcdctl, read; and what no damage to them may do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

#[path = "site/mod.rs"]
mod site;

use kadm_bootstrap::said::{Complaint, causes, complaints};
use kadm_bootstrap::{etcd, look};
use proptest::prelude::*;

fn all() -> Vec<(String, Vec<u8>)> {
    let folder = match site::facts() {
        Ok(folder) => folder,
        Err(why) => {
            eprintln!("skipped: {why}");
            return Vec::new();
        }
    };
    let mut all: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "stderr" || e == "stdout"))
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap()))
        .collect();
    all.sort();
    all
}

fn one(name: &str) -> Option<String> {
    let found = all().into_iter().find(|(n, _)| n == name)?;
    Some(String::from_utf8_lossy(&found.1).into_owned())
}

#[test]
fn every_refusal_of_kubeadm_has_a_cause() {
    let failed = ["init-", "join-", "preflight-", "upgrade-apply-preflight"];
    let mut read = 0;
    for (name, text) in all() {
        let text = String::from_utf8_lossy(&text).into_owned();
        if !failed.iter().any(|f| name.starts_with(f)) || !name.ends_with(".stderr") {
            continue;
        }
        let marked = text.matches("[ERROR ").count();
        let found = complaints(&text);
        let fatal = found.iter().filter(|c| matches!(c, Complaint::Fatal(..))).count();
        assert_eq!(fatal, marked, "{name}");
        let warned = found.iter().filter(|c| matches!(c, Complaint::Warning(..))).count();
        assert_eq!(warned, text.matches("[WARNING ").count(), "{name}");
        if text.contains("\nerror: ") || text.starts_with("error: ") {
            assert!(found.iter().any(|c| matches!(c, Complaint::Error(_))), "{name}");
            assert!(!causes(&text).is_empty(), "{name}");
        }
        read += 1;
    }
    eprintln!("{read} transcripts read");
}

#[test]
fn a_port_in_use_is_named() {
    let Some(text) = one("preflight-port-in-use.stderr") else { return };
    assert!(causes(&text).contains(&"Port-6443: Port 6443 is in use".to_owned()), "{:?}", causes(&text));
}

#[test]
fn etcds_members_are_read() {
    let (Some(list), Some(health)) =
        (one("etcdctl-member-list-json.stdout"), one("etcdctl-endpoint-health-json.stdout"))
    else {
        return;
    };
    let members = etcd::read(list.as_bytes(), health.as_bytes()).unwrap();
    assert_eq!(members.len(), 2);
    assert_eq!((members[0].name.as_str(), members[0].id), ("cp1", 2_677_674_080_080_550_774));
    assert!(members.iter().all(|m| m.healthy && !m.learner));
    let Some(ill) = one("etcdctl-one-endpoint-down-health-json.stdout") else { return };
    let members = etcd::read(list.as_bytes(), ill.as_bytes()).unwrap();
    let names: Vec<&str> = members.iter().filter(|m| m.healthy).map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["cp1"]);
    assert!(etcd::read(b"", health.as_bytes()).is_err());
}

/// Built-in samples, so that the properties run without the transcripts too.
fn samples() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = all().into_iter().map(|(_, text)| text).collect();
    all.push(b"\t[ERROR Port-6443]: Port 6443 is in use\nerror: x\n".to_vec());
    all.push(b"{\"members\":[{\"ID\":1,\"name\":\"a\",\"clientURLs\":[\"u\"]}]}".to_vec());
    all
}

#[test]
fn no_damage_makes_a_reader_panic() {
    let samples = samples();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy =
        (0..samples.len(), any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u8>());
    runner
        .run(&strategy, |(n, cut, at, byte)| {
            let mut damaged = samples[n].clone();
            if !damaged.is_empty() {
                let at = at.index(damaged.len());
                damaged[at] ^= byte;
                damaged.truncate(cut.index(damaged.len() + 1));
            }
            let text = String::from_utf8_lossy(&damaged);
            let _ = (complaints(&text), causes(&text), look::read(&text));
            let _ = etcd::read(&damaged, &damaged);
            let _ = kadm_bootstrap::kubeconfig::read(&text, true);
            Ok(())
        })
        .unwrap();
}
