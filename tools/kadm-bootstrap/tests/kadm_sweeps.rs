//! Every change of a cluster that is there: killed after a step, run again, the same cluster.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use cluster_doc::Exit;
use kadm_bootstrap::KadmBootstrap;
use laws::sweep::{Table, sweep};
use serde_json::{Value, json};
use site::Site;

/// How many steps of each are swept by default: the first, the last and some between.
const AT_MOST: usize = 12;

/// A cluster that is there, of all machines but `later`, with a pod network.
async fn running(control_planes: u8, workers: u8, later: &[&str]) -> Site {
    let site = Site::new(control_planes, workers).await;
    let ran = site.run(&[], &site.without(later, &[])).await;
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    site.network().await;
    site
}

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
        let site = running(3, 1, &[]).await;
        // Machines with blank disks, whose member and nodes are still there.
        site.blank("cp-1", 21).await;
        site.blank("w-1", 31).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("join", none, AT_MOST, join).await);
    let add = async || {
        let site = running(3, 2, &["cp-3", "w-2"]).await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("add", none, AT_MOST, add).await);
    let remove = async || {
        let site = running(4, 2, &["cp-4"]).await;
        let document = plain(site.without(&["cp-1", "w-2"], &["cp-1", "w-2"]));
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("remove", none, AT_MOST, remove).await);
    let upgrade = async || {
        let site = running(3, 2, &[]).await;
        let mut document = plain(site.document());
        document["spec"]["kubernetes"]["version"] = json!("1.36.3");
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("upgrade", &["--max-unavailable", "2"], AT_MOST, upgrade).await);
    // The disk of the first control plane's etcd is gone; the rest of the machine is as it was.
    let disk = async || {
        let site = running(3, 1, &[]).await;
        site.lose_etcd("cp-1").await;
        let document = plain(site.document());
        site.case(document)
    };
    rows.push(sweep::<KadmBootstrap>("disk", &["--reset-host", "cp-1"], AT_MOST, disk).await);
    let rows: Vec<_> = rows.into_iter().map(|r| r.unwrap_or_else(|e| panic!("{e}"))).collect();
    eprintln!("{}swept in {:.1} s", Table(&rows), begun.elapsed().as_secs_f64());
    for row in rows {
        assert_eq!((row.kills, row.broken.len()), (row.converged, 0), "{}", row.held().unwrap_err());
    }
}
