//! With a node lost, the rest is done: nobody waits for what will not come.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail so")]

mod site;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_doc::Exit;
use lab::world::{Kubernetes as _, Machines as _};
use serde_json::{Value, json};
use site::{Ran, Site};

/// Far below the five minutes that evidence is waited for.
const SOON: Duration = Duration::from_secs(60);

/// The pods of a workload that run, by node.
fn pods(site: &Site, begins: &str) -> BTreeMap<String, String> {
    let id = site.kube.clusters().remove(0);
    let named = |p: &Value| p["metadata"]["name"].as_str().unwrap().to_owned();
    let all = site.kube.list(&id, "v1", "Pod");
    let mine =
        all.iter().filter(|p| named(p).starts_with(begins) && p["metadata"]["deletionTimestamp"].is_null());
    mine.map(|p| (p["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(), named(p))).collect()
}

async fn soon(site: &Site, args: &[&str], document: &Value) -> Ran {
    let begun = Instant::now();
    let ran = site.run(args, document).await;
    assert!(begun.elapsed() < SOON, "it took {:?}: {}", begun.elapsed(), ran.err);
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_proxy_rolls_on_the_nodes_that_are_there() {
    let site = Site::running(1, 3, &[]).await;
    let mut document = site.document();
    document["spec"]["cni"] = json!({ "dataplane": "nftables" });
    let before = pods(&site, "kube-proxy-");
    let boot = site.hosts.find("w-2").unwrap().machine().boot.clone();
    site.lose("w-2", 32).await;
    let ran = soon(&site, &[], &document).await;
    assert_eq!(ran.exit, Exit::Partial, "{}\n{:#?}", ran.err, site.world.journal.unknown());
    assert!(ran.err.contains("held w-2"), "{}", ran.err);
    let now = pods(&site, "kube-proxy-");
    for name in ["cp-1", "w-1", "w-3"] {
        assert!(now.contains_key(name) && now[name] != before[name], "{name}: {before:?} {now:?}");
    }
    let mark = site.world.journal.len();
    let again = soon(&site, &[], &document).await;
    assert_eq!((again.exit, &again.out), (Exit::Partial, &ran.out), "{}", again.err);
    assert!(site.changes(mark).is_empty(), "{:#?}", site.changes(mark));
    // It comes back, and its pod is of the new kind without another word.
    site.hosts.power_on(boot);
    site.answers("w-2", 32).await;
    let back = || pods(&site, "kube-proxy-").get("w-2").is_some_and(|p| *p != before["w-2"]);
    site.until("kube-proxy on w-2 is new", back).await;
    site.done(&[], &document).await;
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_approver_moves_to_a_control_plane_that_is_there() {
    let site = Site::running(3, 2, &["w-2"]).await;
    let on = pods(&site, "kubelet-csr-approver-").into_keys().next().unwrap();
    let last = 20 + on.strip_prefix("cp-").unwrap().parse::<u8>().unwrap();
    site.lose(&on, last).await;
    // Another machine means another list of names for the approver.
    let ran = soon(&site, &[], &site.document()).await;
    assert_eq!(ran.exit, Exit::Partial, "{}\n{:#?}", ran.err, site.world.journal.unknown());
    let elsewhere =
        || pods(&site, "kubelet-csr-approver-").keys().any(|node| *node != on && !node.is_empty());
    site.until("the approver is elsewhere", elsewhere).await;
    let again = soon(&site, &[], &site.document()).await;
    assert_eq!((again.exit, &again.out), (Exit::Partial, &ran.out), "{}", again.err);
    site.nothing_unknown();
}

/// etcd takes no member while one is away, and a restart of another could cost the quorum: both are said at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_left_alone_while_a_member_is_lost() {
    let site = Site::running(5, 0, &["cp-4", "cp-5"]).await;
    site.age_certificate("cp-1");
    site.lose("cp-3", 23).await;
    let ran = soon(&site, &[], &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("etcd takes no new member while cp-3 is away"), "{}", ran.err);
    let mark = site.world.journal.len();
    let ran = soon(&site, &["certs", "--renew", "--yes"], &site.document()).await;
    assert_eq!(ran.exit, Exit::Precondition, "{}", ran.err);
    assert!(ran.err.contains("may cost the quorum") && site.changes(mark).is_empty(), "{}", ran.err);
    // Taken out of the document, with another in its place, it is removed first, and the others go on.
    let replaced = site.without(&["cp-3", "cp-5"], &["cp-3"]);
    let ran = soon(&site, &[], &replaced).await;
    assert_eq!(ran.exit, Exit::Partial, "{}", ran.err);
    let id = site.kube.clusters().remove(0);
    let mut members: Vec<String> = site.hosts.etcd_members(&id).into_iter().map(|m| m.name).collect();
    members.sort();
    assert_eq!(members, ["cp-1", "cp-2", "cp-4"]);
    let ran = soon(&site, &["certs", "--renew", "--yes"], &replaced).await;
    assert_eq!((ran.exit, site.ends_soon("cp-1")), (Exit::Done, false), "{}", ran.err);
    site.nothing_unknown();
}
