//! The client killed at every request, and run again: the same world, nothing doubled, nothing left behind.
//!
//! By default a sample of the boundaries; `KUBELINE_SWEEP=all` tries every one, `KUBELINE_SWEEP=10` every tenth.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::time::Duration;

use lab::{Action, Fault, Window};
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site};

/// How many boundaries of a leg are tried by default.
const SAMPLE: usize = 25;
const DESTROY: &[&str] = &["destroy", "--yes", "--delete-data", "demo-nfs-1"];
const PRUNE: &[&str] = &["destroy", "--yes", "--prune"];

/// A run that is killed: its verb, its document, and the world that it leaves.
struct Leg {
    name: &'static str,
    args: &'static [&'static str],
    doc: Value,
}

/// Runs until so many requests in this window have been executed, then ends the client at once. False when the run
/// was over before.
async fn killed(site: &Site, leg: &Leg, window: Window, after: usize) -> bool {
    let faults = &site.lab.world.faults;
    let times = usize::MAX;
    faults.inject(Fault { window, matching: String::new(), skip: after, times, action: Action::Hang });
    let struck = async {
        while faults.left("") == Some(times) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let killed = tokio::select! {
        _ = site.run(leg.args, &leg.doc) => false,
        () = struck => true,
    };
    faults.clear();
    killed
}

/// How many requests of each window an undisturbed run makes.
async fn requests(site: &Site, leg: &Leg) -> Vec<(Window, usize)> {
    let mark = site.lab.world.journal.len();
    let run = site.run(leg.args, &leg.doc).await;
    assert_eq!(run.exit, Exit::Done, "{}: {}", leg.name, run.stderr);
    let all = site.lab.world.journal.since(mark);
    [Window::Pve, Window::Ssh].map(|w| (w, all.iter().filter(|e| e.window == w).count())).into()
}

fn boundaries(counts: &[(Window, usize)]) -> Vec<(Window, usize)> {
    let all: Vec<(Window, usize)> =
        counts.iter().flat_map(|(window, count)| (0..*count).map(|n| (*window, n))).collect();
    let step = match std::env::var("KUBELINE_SWEEP").as_deref() {
        Ok("all") => 1,
        Ok(step) => step.parse().unwrap(),
        Err(_) => all.len() / SAMPLE,
    };
    // Not the first: a client that asked nothing has done nothing.
    all.into_iter().skip(step / 2).step_by(step.max(1)).collect()
}

/// Runs a leg, killed first where `at` says so, to its end: the world that it leaves is `wanted`, and the run after
/// it changes nothing.
async fn converges(site: &Site, leg: &Leg, at: Option<(Window, usize)>, wanted: &Value) {
    if let Some((window, after)) = at {
        killed(site, leg, window, after).await;
    }
    let what = format!("{}, killed at {at:?}", leg.name);
    let again = site.run(leg.args, &leg.doc).await;
    assert_eq!(again.exit, Exit::Done, "{what}: {}", again.stderr);
    assert_eq!(&site.world(), wanted, "{what}");
    let mark = site.lab.world.journal.len();
    let third = site.run(leg.args, &leg.doc).await;
    assert_eq!((third.exit, &third.stdout), (Exit::Done, &again.stdout), "{what}: {}", third.stderr);
    assert_eq!(site.changes(mark), Vec::<String>::new(), "{what}");
}

/// Goes up and down again and again, killed at another request each time.
async fn sweep(site: &Site, up: Leg, down: Leg) {
    let base = site.world();
    let ups = requests(site, &up).await;
    let high = site.world();
    let downs = requests(site, &down).await;
    assert_eq!(site.world(), base, "{} undoes {}", down.name, up.name);
    let all: usize = ups.iter().chain(&downs).map(|(_, count)| count).sum();
    let (ups, downs) = (boundaries(&ups), boundaries(&downs));
    for n in 0..ups.len().max(downs.len()) {
        converges(site, &up, ups.get(n).copied(), &high).await;
        converges(site, &down, downs.get(n).copied(), &base).await;
    }
    site.nothing_unknown();
    println!(
        "{}: {} boundaries, {} converged; {}: {} boundaries, {} converged; of {all} requests",
        up.name,
        ups.len(),
        ups.len(),
        down.name,
        downs.len(),
        downs.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_of_thirteen_machines_and_their_end() {
    let site = site().await;
    site.lab.pve.add_foreign(120, "somebodys-db", "pve2");
    let doc = site.whole();
    let up = Leg { name: "build", args: &[], doc: doc.clone() };
    sweep(&site, up, Leg { name: "destroy", args: DESTROY, doc }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grow_and_a_shrink() {
    let site = site().await;
    let mut doc = site.whole();
    // No machine of theirs has joined a cluster.
    doc["status"] = json!({ "kadm-bootstrap": { "controlPlanes": [], "workers": [] } });
    site.run(&[], &doc).await.doc(Exit::Done);
    let mut grown = doc.clone();
    grown["spec"]["pools"][2]["count"] = json!(6);
    grown["spec"]["pools"][0]["cores"] = json!(1);
    let up = Leg { name: "grow", args: &[], doc: grown };
    sweep(&site, up, Leg { name: "shrink", args: PRUNE, doc }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replacement_that_keeps_a_data_disk() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let world = site.world();
    let leg = Leg { name: "replace", args: &["replace", "demo-nfs-1", "--yes"], doc };
    let counts = requests(&site, &leg).await;
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    let boundaries = boundaries(&counts);
    for (window, after) in &boundaries {
        killed(&site, &leg, *window, *after).await;
        let what = format!("replace, killed at {after} of {window:?}");
        let disk =
            site.guests().into_iter().find(|g| g.name == "demo-nfs-1").unwrap().config["scsi1"].clone();
        assert!(disk.contains("serial=data") && disk.contains("size=500G"), "{what}: {disk}");
        let again = site.run(leg.args, &leg.doc).await;
        assert_eq!(again.exit, Exit::Done, "{what}: {}", again.stderr);
        assert_eq!(site.world(), world, "{what}");
        let mark = site.lab.world.journal.len();
        let third = site.run(&[], &leg.doc).await;
        assert_eq!((third.exit, site.changes(mark).len()), (Exit::Done, 0), "{what}: {}", third.stderr);
    }
    site.nothing_unknown();
    println!("replace: {} boundaries, {} converged, of {all} requests", boundaries.len(), boundaries.len());
}
