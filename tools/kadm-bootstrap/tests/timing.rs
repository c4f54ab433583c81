//! How long a cluster takes beside what has to follow one another in it.
//!
//! Figures are printed; only what is far off fails, for other tests may run on the same processors.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod site;

use std::collections::BTreeMap;
use std::time::Instant;

use cluster_doc::Exit;
use lab::Clock;
use serde_json::Value;
use site::Site;

/// A tenth of the length of life.
const SCALE: f64 = 0.1;
/// What apt takes for its lists and for eight packages (three with one that they need), and systemd for containerd, in
/// nominal seconds.
const PREPARED: f64 = 3.0 + 8.0 * 5.0 + 2.0 * 0.3;
/// What the seven images of a control plane take, which all control planes pull at the same time.
const IMAGES: f64 = 7.0 * 3.0;
/// What an init takes: its kubelet registers and asks for its certificate meanwhile.
const INIT: f64 = 7.0;
/// What the join of a control plane takes: etcd's learner, then a kubelet that registers, then its request for a
/// certificate.
const CONTROL_PLANE: f64 = 15.0 + 1.0 + 1.0;
/// What the join of a worker takes: its kubelet registers meanwhile, then asks for its certificate.
const WORKER: f64 = 1.0 + 1.0;
/// What the approver of later certificates takes: its image. It comes last, so that it keeps no machine out.
const APPROVER: f64 = 3.0;

/// A step as it ran: what it waited for, when it began and when it was done, in seconds.
#[derive(Default)]
struct Ran {
    what: String,
    after: Vec<usize>,
    began: f64,
    done: f64,
}

fn steps(plan: &str, events: &str) -> BTreeMap<usize, Ran> {
    let plan: Value = serde_json::from_str(plan).unwrap();
    let number = |v: &Value| usize::try_from(v.as_u64().unwrap()).unwrap();
    let mut all: BTreeMap<usize, Ran> = BTreeMap::new();
    for step in plan["steps"].as_array().unwrap() {
        let after = step["after"].as_array().unwrap().iter().map(number).collect();
        let what = step["do"].as_str().unwrap().to_owned();
        all.insert(number(&step["n"]), Ran { what, after, ..Ran::default() });
    }
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let seconds = event["seconds"].as_f64().unwrap();
        let Some(step) = event["n"].as_u64().and_then(|_| all.get_mut(&number(&event["n"]))) else {
            continue;
        };
        match event["event"].as_str().unwrap() {
            "started" => step.began = seconds,
            "done" => step.done = seconds,
            other => panic!("{other}: {line}"),
        }
    }
    all
}

/// The chain of steps that took longest, each of which had to wait for the one before.
fn chain(steps: &BTreeMap<usize, Ran>) -> (f64, Vec<String>) {
    let mut best: BTreeMap<usize, (f64, Vec<String>)> = BTreeMap::new();
    // A step waits for earlier ones alone.
    for (n, step) in steps {
        let before = step.after.iter().filter_map(|a| best.get(a)).max_by(|a, b| a.0.total_cmp(&b.0));
        let (mut length, mut path) = before.cloned().unwrap_or_default();
        length += step.done - step.began;
        path.push(format!(
            "{} {:.2}",
            step.what.split(" behind").next().unwrap_or_default(),
            step.done - step.began
        ));
        best.insert(*n, (length, path));
    }
    best.into_values().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

async fn timed(workers: u8) {
    let site = Site::timed(3, workers, Clock::scaled(SCALE)).await;
    let document = site.document();
    let plan = site.run(&["plan", "--json"], &document).await;
    assert_eq!(plan.exit, Exit::Done, "{}", plan.err);
    let events = site.path("events");
    let begun = Instant::now();
    let ran = site.run(&["--jobs", "128", "--events", events.to_str().unwrap()], &document).await;
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(ran.exit, Exit::Done, "{}", ran.err);
    let steps = steps(&plan.out, &std::fs::read_to_string(&events).unwrap());
    let (measured, path) = chain(&steps);
    if std::env::var_os("LAB_TRACE").is_some() {
        for (n, s) in &steps {
            println!("STEP {n} {:.2}-{:.2} {:?} {}", s.began, s.done, s.after, s.what);
        }
    }
    let nominal = PREPARED + IMAGES + INIT + 2.0 * CONTROL_PLANE + WORKER + APPROVER;
    let due = nominal * SCALE;
    println!(
        "{} machines (3+{workers}) at a tenth of their latencies: {took:.2} s; what must follow one another: ({PREPARED} \
         prepared + {IMAGES} images + {INIT} init + 2 x {CONTROL_PLANE} control planes + {WORKER} worker + {APPROVER} \
         approver) x {SCALE} = {due:.2} s: {:+.0} %",
        3 + workers,
        (took / due - 1.0) * 100.0,
    );
    println!(
        "{} machines: the longest chain of steps as they ran: {measured:.2} s = {}: {:+.0} %",
        3 + workers,
        path.join(" + "),
        (took / measured - 1.0) * 100.0,
    );
    assert!(took < due * 4.0, "{took} s rather than {due} s");
}

// More threads than processors: where one waits for a lock of the lab, the machines that have none to wait for go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn three_and_six() {
    timed(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn three_and_ninety_seven() {
    let all = std::env::var(laws::sweep::ALL).is_ok_and(|v| v == "all");
    if cfg!(debug_assertions) && !all {
        println!(
            "skipped: a hundred machines in one process want an optimised build (just bench), or KUBELINE_SWEEP=all"
        );
        return;
    }
    timed(97).await;
}
