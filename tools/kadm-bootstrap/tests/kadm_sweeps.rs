//! Every change of a cluster that is there: killed after a step, run again, the same cluster.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use std::collections::BTreeSet;

use kadm_bootstrap::KadmBootstrap;
use laws::sweep::{Table, sweep, sweep_verb};
use serde_json::{Value, json};
use site::Site;
use site::secrets::secret_in;

/// How many steps of each are swept by default: the first, the last and some between.
const AT_MOST: usize = 12;

fn plain(mut document: Value) -> Value {
    document["status"].as_object_mut().unwrap().remove("lb-render");
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_of_each_change_may_be_the_last() {
    let begun = std::time::Instant::now();
    let mut rows = Vec::new();
    let none: &[&str] = &[];
    let init = async || {
        let site = Site::new(3, 1).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("init", none, AT_MOST, init).await);
    let join = async || {
        let site = Site::running(3, 1, &[]).await;
        // Machines with blank disks, whose member and nodes are still there.
        site.blank("cp-1", 21).await;
        site.blank("w-1", 31).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("join", none, AT_MOST, join).await);
    let add = async || {
        let site = Site::running(3, 2, &["cp-3", "w-2"]).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("add", none, AT_MOST, add).await);
    let remove = async || {
        let site = Site::running(4, 2, &["cp-4"]).await;
        let document = plain(site.without(&["cp-1", "w-2"], &["cp-1", "w-2"]));
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("remove", none, AT_MOST, remove).await);
    let upgrade = async || {
        let site = Site::running(3, 2, &[]).await;
        let mut document = plain(site.document());
        document["spec"]["kubernetes"]["version"] = json!("1.36.3");
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("upgrade", &["--max-unavailable", "2"], AT_MOST, upgrade).await);
    // The disk of the first control plane's etcd is gone; the rest of the machine is as it was.
    let disk = async || {
        let site = Site::running(3, 1, &[]).await;
        site.lose_etcd("cp-1").await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("disk", &["--reset-host", "cp-1"], AT_MOST, disk).await);
    let certs = async || {
        let site = Site::running(3, 1, &[]).await;
        site.age_certificate("cp-1");
        site.age_certificate("cp-3");
        site.age_kubeconfig();
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep_verb::<KadmBootstrap>("certs", &["certs", "--renew", "--yes"], AT_MOST, certs).await);
    let rows: Vec<_> = rows.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{e}"))).collect();
    eprintln!("{}swept in {:.1} s", Table(&rows), begun.elapsed().as_secs_f64());
    for row in rows {
        assert_eq!((row.kills, row.broken.len()), (row.converged, 0), "{}", row.held().unwrap_err());
    }
}

/// What the search of every argument list finds, and what it lets pass.
#[test]
fn the_search_for_secrets_finds_some() {
    let entry = |argv: &[&str]| lab::Entry {
        seq: 0,
        window: lab::Window::Ssh,
        target: "cp-1".into(),
        request: argv.join(" "),
        changing: true,
        unknown: false,
        argv: argv.iter().map(|w| (*w).to_owned()).collect(),
    };
    let hex = "0123456789abcdef".repeat(4);
    let key = BTreeSet::from(["MC4CAQAwBQYDK2VwBCIEIJ9".to_owned()]);
    for bad in [
        &["kubeadm", "join", "--token", "x"][..],
        &["sh", "-c", "echo abcdef.0123456789abcdef"],
        &["kubeadm", "join", "--x=abcdef.0123456789abcdef"],
        &["kubeadm", "init", "-k", &hex],
        &["kubeadm", "join", &format!("--hash=sha256:{hex}")],
        &["tee", "xMC4CAQAwBQYDK2VwBCIEIJ9x"],
        &["age", "AGE-SECRET-KEY-1"],
    ] {
        assert!(secret_in(&entry(bad), &key).is_some(), "{bad:?}");
    }
    for good in
        [&["kubeadm", "join", "--config", "/run/x"][..], &["crictl", "stop", &hex], &["kadm-pin", &hex]]
    {
        assert_eq!(secret_in(&entry(good), &key), None);
    }
}
