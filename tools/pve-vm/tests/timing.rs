//! How long a build takes beside what the locks allow, and what many machines cost.
//!
//! Figures are printed; only what is far off fails, for other tests may run on the same processors.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lab::{Clock, Window};
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site_of};

/// A tenth of the length of life.
const SCALE: f64 = 0.1;

/// When a wait of so many nominal seconds is seen to be over by polls whose pauses grow from `first` by `factor` up
/// to `most`, in real seconds.
fn seen(nominal: f64, first: f64, factor: f64, most: f64) -> f64 {
    let (mut at, mut pause) = (0.0, first);
    while at < nominal * SCALE {
        at += pause;
        pause = (pause * factor).min(most);
    }
    at
}

/// A task's end.
fn task(nominal: f64) -> f64 {
    seen(nominal, 0.01, 1.5, 2.0)
}

/// Evidence.
fn evidence(nominal: f64) -> f64 {
    seen(nominal, 0.02, 2.0, 1.0)
}

/// How long a linked clone holds its storage's lock, and how many of them are in hand for each, in front of the lock.
const CLONE: f64 = 2.0;
const LANES: f64 = 4.0;

/// The critical path in real seconds: on each node the storage's lock lets one linked clone after the other, of two
/// seconds each; then each machine for itself grows its disk (1), is seeded (1), starts (3), boots (15), and ends its
/// first boot (5). With one poll a wait: the last clone's is as long as those before it in its lane take.
fn critical_path(machines: &[Value]) -> (f64, f64) {
    let mut per: BTreeMap<&str, u32> = BTreeMap::new();
    for machine in machines {
        *per.entry(machine["node"].as_str().unwrap()).or_default() += 1;
    }
    let most = f64::from(per.into_values().max().unwrap());
    let clones = CLONE * most;
    let last = CLONE * most.min(LANES);
    let nominal = clones + 1.0 + 1.0 + 3.0 + 15.0 + 5.0;
    let polled = (clones - last) * SCALE
        + task(last)
        + task(1.0)
        + task(1.0)
        + task(3.0)
        + evidence(15.0)
        + evidence(5.0);
    (nominal * SCALE, polled)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirteen_machines_take_what_the_locks_allow() {
    let site = site_of(|config| config.clock = Clock::scaled(SCALE)).await;
    let begun = Instant::now();
    let run = site.run(&[], &site.whole()).await;
    let took = begun.elapsed().as_secs_f64();
    let polled = told("13 machines on 3 nodes", took, &run.machines(Exit::Done));
    assert!(took < polled * 1.5, "{took} s rather than {polled} s");
}

/// Prints both figures, and gives what the locks allow with one poll a wait.
fn told(what: &str, took: f64, machines: &[Value]) -> f64 {
    let (path, polled) = critical_path(machines);
    println!(
        "{what} at a tenth of their latencies: {took:.2} s; the locks allow {path:.2} s, {polled:.2} s with one poll a \
         wait: {:+.0} %",
        (took / polled - 1.0) * 100.0
    );
    polled
}

/// Machines by the hundred, one pool for each /24 of the lab's part of the loopback network.
fn many(site: &Site, count: usize) -> Value {
    let mut doc = site.small();
    let [_, x, ..] = site.lab.world.net.host(1).octets();
    let pools = (0..count.div_ceil(250)).map(|n| {
        let here = (count - n * 250).min(250);
        json!({ "name": format!("w{n}"), "role": "worker", "count": here, "cores": 1, "memory": "1Gi", "disk": "8Gi",
            "addresses": format!("127.{x}.{}.1-127.{x}.{}.250", 251 + n, 251 + n) })
    });
    doc["spec"]["pools"] = pools.collect();
    doc["spec"]["network"] = json!({ "cidr": format!("127.{x}.0.0/16") });
    doc["spec"]["proxmox"]["vmids"] = json!("3000-3999");
    doc["spec"].as_object_mut().unwrap().remove("vip");
    doc
}

/// What a run of the program itself was like.
struct Ran {
    good: bool,
    took: Duration,
    /// The most memory that it had, in MiB.
    memory: u64,
    /// Seconds of processor that it took, and that the lab took meanwhile.
    work: (f64, f64),
}

/// Seconds of processor that a process has taken so far (proc(5): user and system time, in hundredths).
fn processor(id: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or_default();
    after.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Runs the program itself.
async fn program(site: &Site, doc: &Value) -> Ran {
    let file = site.dir.path().join("many.json");
    std::fs::write(&file, doc.to_string()).unwrap();
    let begun = Instant::now();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_pve-vm"))
        .args(["-o", "out.json", "-f"])
        .arg(&file)
        .current_dir(site.dir.path())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let id = child.id().unwrap().to_string();
    let status = format!("/proc/{id}/status");
    let before = processor("self");
    let (mut most, mut own) = (0, 0.0_f64);
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        most = most.max(peak.unwrap_or(0));
        own = own.max(processor(&id));
        if let Some(end) = child.try_wait().unwrap() {
            let work = (own, processor("self") - before);
            return Ran { good: end.success(), took: begun.elapsed(), memory: most >> 10, work };
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_machines_cost_no_more_each() {
    let mut each = Vec::new();
    for count in [100, 500] {
        let site = site_of(|config| config.nodes = 20).await;
        let Ran { good, took, memory, .. } = program(&site, &many(&site, count)).await;
        assert!(good, "{count} machines");
        let asked = site.lab.world.journal.since(0).iter().filter(|e| e.window == Window::Pve).count();
        let requests = asked as f64 / count as f64;
        println!(
            "{count} machines on 20 nodes without latencies: {:.1} s, {requests:.1} requests a machine, {memory} MiB at most",
            took.as_secs_f64()
        );
        assert!(memory <= 100, "{memory} MiB");
        assert_eq!(site.guests().len(), count);
        each.push(requests);
    }
    assert!(each[1] <= each[0] * 1.1, "{each:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_machines_take_what_the_locks_allow() {
    if std::env::var("KUBELINE_BENCH").is_err() {
        println!(
            "skipped: 500 machines with latencies want idle processors; KUBELINE_BENCH=1 runs it (just bench)"
        );
        return;
    }
    let site = site_of(|config| (config.nodes, config.clock) = (20, Clock::scaled(SCALE))).await;
    let Ran { good, took, memory, work } = program(&site, &many(&site, 500)).await;
    assert!(good);
    let built: Value =
        serde_json::from_slice(&std::fs::read(site.dir.path().join("out.json")).unwrap()).unwrap();
    let machines = built["status"]["pve-vm"]["machines"].as_array().unwrap();
    assert!(machines.len() == 500 && machines.iter().all(|m| m["reachable"] == true));
    told("500 machines on 20 nodes", took.as_secs_f64(), machines);
    let asked = site.lab.world.journal.since(0).iter().filter(|e| e.window == Window::Pve).count();
    println!(
        "500 machines with latencies: {:.1} requests a machine, {memory} MiB at most; {:.1} s of processor, and {:.1} s \
         of the lab's",
        asked as f64 / 500.0,
        work.0,
        work.1
    );
    assert!(memory <= 100, "{memory} MiB");
}
