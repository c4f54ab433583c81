//! Two operators at once: two runs against one Proxmox do each other no harm.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::{Action, Event, Fault, Window};
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site, site_of};

/// How often two runs meet, each time a little further apart.
const MEETINGS: u64 = 6;

/// What is told of a seed that somebody deleted before it was put in.
const TAKEN: &str = "its seed is gone";

async fn slow() -> Site {
    site_of(|config| config.clock = lab::Clock::scaled(0.01)).await
}

/// Another run brings all to its end, each machine once, with nothing left over, and the run after it changes nothing.
async fn settled(site: &Site, doc: &Value, what: &str) {
    let machines = site.run(&[], doc).await.machines(Exit::Done);
    assert!(machines.iter().all(|m| m["reachable"] == true), "{what}: {machines:?}");
    assert_eq!(site.guests().len(), 4, "{what}");
    let mark = site.lab.world.journal.len();
    assert_eq!(site.run(&[], doc).await.exit, Exit::Done, "{what}");
    assert_eq!(site.changes(mark), Vec::<String>::new(), "{what}");
    for guest in site.guests() {
        let twice = guest.config.keys().any(|k| k.starts_with("unused"));
        assert!(!twice, "{what}: a disk was made twice: {guest:?}");
    }
    for node in site.lab.pve.nodes() {
        let left: Vec<String> =
            site.lab.pve.volumes(&node).into_iter().filter(|v| v.contains("kubeline-seed")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_builds_end_as_one() {
    let mut exits: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..MEETINGS {
        let site = slow().await;
        let mut doc = site.small();
        if n % 2 == 1 {
            doc["spec"]["pools"][0]["kind"] = json!("lxc");
            doc["spec"]["proxmox"]["containerTemplate"] = json!({
                "url": "https://mirror.lab.example/debian-13-standard_13.1-2_amd64.tar.zst",
                "checksum": format!("sha512:{}", "ab".repeat(64)), "storage": "local" });
        }
        let ended = AtomicBool::new(false);
        let first = async {
            let run = site.run(&[], &doc).await;
            ended.store(true, Ordering::Relaxed);
            run
        };
        let second = async {
            // The second comes when the first has sent so many requests, or has ended with fewer.
            while site.lab.world.journal.len() < n as usize * 40 && !ended.load(Ordering::Relaxed) {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            site.run(&[], &doc).await
        };
        let (one, other) = tokio::join!(first, second);
        for run in [&one, &other] {
            assert!(matches!(run.exit, Exit::Done | Exit::Transient), "{n}: {:?} {}", run.exit, run.stderr);
            assert!(!run.stderr.contains(TAKEN), "{n}: {}", run.stderr);
            *exits.entry(format!("{:?}", run.exit)).or_default() += 1;
        }
        settled(&site, &doc, &n.to_string()).await;
    }
    println!("two operators: {MEETINGS} meetings, the runs ended {exits:?}, all converged");
}

/// A seed that is uploaded and not yet put in looks like what a broken run left. Whatever another run does at that
/// moment, it deletes none that may still be put in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_another_run_is_about_to_put_in_stays() {
    let fault = |matching: &str, action| Fault {
        window: Window::Pve,
        matching: matching.to_owned(),
        skip: 0,
        times: usize::MAX,
        action,
    };
    // The other run cannot make seeds of its own and gives up, or is through before the first goes on.
    for (through, exit) in [(false, Exit::Done), (true, Exit::Transient)] {
        let site = Arc::new(site().await);
        let doc = site.small();
        let (weak, other, begun) = (Arc::downgrade(&site), doc.clone(), AtomicBool::new(false));
        let busy = Action::Status(500, "got no worker upid - start worker failed".to_owned());
        let busy = fault("/upload", busy);
        let event = Event::new(move || {
            if begun.swap(true, Ordering::SeqCst) {
                return;
            }
            let site = weak.upgrade().unwrap();
            let faults = &site.lab.world.faults;
            let args: &[&str] = if through { &[] } else { &["--timeout", "2s"] };
            if !through {
                faults.inject(busy.clone());
            }
            let mark = site.lab.world.journal.len();
            let run = site.run(args, &other);
            let run = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(run));
            let expected = if through { Exit::Done } else { Exit::Transient };
            assert_eq!(run.exit, expected, "{}", run.stderr);
            assert!(!run.stderr.contains(TAKEN), "{}", run.stderr);
            let deleted = site
                .changes(mark)
                .iter()
                .any(|r| r.starts_with("DELETE") && r.contains("seed.demo.demo-lb-1."));
            // Where it is through, the seed was of no use to anybody before it went.
            assert_eq!(deleted, through, "{:#?}", site.changes(mark));
            faults.clear();
        });
        let put = fault("PUT /nodes/pve1/qemu/3000/config", Action::Meanwhile(event));
        site.lab.world.faults.inject(put);
        let run = site.run(&[], &doc).await;
        assert_eq!(run.exit, exit, "{}", run.stderr);
        if through {
            assert!(run.stderr.contains("another run noted its host key first"), "{}", run.stderr);
        }
        site.lab.world.faults.clear();
        settled(&site, &doc, if through { "through" } else { "given up" }).await;
    }
}
