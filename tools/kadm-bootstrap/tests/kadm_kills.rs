//! A process killed at any request: certificates half renewed, a backup half taken, and the run after it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use std::path::PathBuf;

use cluster_doc::Exit;
use laws::sweep::{Row, Table};
use site::Site;

/// Every how many requests a run is killed unless `KUBELINE_SWEEP=all`.
const EVERY: usize = 4;

/// Whether every request is taken.
fn all() -> bool {
    std::env::var(laws::sweep::ALL).is_ok_and(|v| v == "all")
}

fn files(site: &Site) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(site.path("saved")).into_iter().flatten();
    let mut all: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_killed_at_any_request_leaves_nothing_behind_the_next() {
    let site = Site::running(1, 1, &[]).await;
    let document = site.document();
    let (key, recipient) = site.identity();
    let args = ["backup", "saved", "--recipient", &recipient];
    let due = site.picture();
    let mut row = Row { what: "backup", steps: 0, kills: 0, converged: 0, broken: Vec::new() };
    while site.kill_at(&args, &document, row.steps).await {
        row.steps += 1;
        row.kills += 1;
        for half in files(&site) {
            let name = half.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(name.ends_with(".part"), "killed at request {}: {name} looks whole", row.steps);
        }
        let ran = site.run(&args, &document).await;
        assert_eq!(ran.exit, Exit::Done, "killed at request {}: {}", row.steps, ran.err);
        let file = PathBuf::from(ran.out.trim());
        assert_eq!(files(&site), [file.with_extension("").with_extension("json"), file.clone()]);
        let (found, _) = kadm_bootstrap::backup::looked_at(file, key.clone()).unwrap();
        assert!(found.manifest.snapshot.total_key > 0);
        assert_eq!(site.picture(), due, "killed at request {}", row.steps);
        row.converged += 1;
        for file in files(&site) {
            std::fs::remove_file(file).unwrap();
        }
    }
    assert!(row.kills > 5, "only {} requests", row.kills);
    eprintln!("{}", Table(&[row]));
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_killed_at_any_request_is_seen_through_by_the_next() {
    let site = Site::running(3, 0, &[]).await;
    let document = site.document();
    let due = site.picture();
    let aged = || ["cp-1", "cp-2", "cp-3"].map(|name| site.ends_soon(name));
    let args = ["certs", "--renew", "--yes"];
    let mut row = Row { what: "certs", steps: 0, kills: 0, converged: 0, broken: Vec::new() };
    loop {
        site.age_certificate("cp-1");
        site.age_certificate("cp-3");
        let mark = site.world.journal.len();
        if !site.kill_at(&args, &document, row.steps).await {
            break;
        }
        row.kills += 1;
        let ran = site.run(&args, &document).await;
        let killed = format!("killed at request {}", row.steps + 1);
        assert_eq!(ran.exit, Exit::Done, "{killed}: {}", ran.err);
        assert_eq!((site.picture(), aged()), (due.clone(), [false; 3]), "{killed}");
        // All four were started anew after the certificates were last written, whichever of the two runs did it.
        let changes: Vec<String> =
            site.changes(mark).iter().map(|e| format!("{} {}", e.target, e.request)).collect();
        for name in ["cp-1", "cp-3"] {
            let renewed = changes.iter().rposition(|r| *r == format!("{name} kubeadm certs renew all"));
            let renewed = renewed.unwrap_or_else(|| panic!("{killed}: {name} was not renewed: {changes:#?}"));
            let stop = |r: &&String| r.starts_with(&format!("{name} crictl")) && r.contains(" stop ");
            let stops = changes[renewed..].iter().filter(stop).count();
            assert!(stops >= 4, "{killed}: {name}: {changes:#?}");
        }
        assert!(!changes.iter().any(|r| r.starts_with("cp-2 kubeadm certs renew")), "{killed}");
        row.converged += 1;
        row.steps += if all() { 1 } else { EVERY };
    }
    assert!(row.kills > 5, "only {} kills", row.kills);
    eprintln!("{}", Table(&[row]));
    site.nothing_unknown();
}
