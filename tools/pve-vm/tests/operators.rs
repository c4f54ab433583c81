//! Two operators at once: two runs against one Proxmox do each other no harm.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use stage::Exit;
use support::{Site, site_of};

/// How often two runs meet, each time a little further apart.
const MEETINGS: u64 = 6;

async fn slow() -> Site {
    site_of(|config| config.clock = lab::Clock::scaled(0.01)).await
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
            *exits.entry(format!("{:?}", run.exit)).or_default() += 1;
        }
        let machines = site.run(&[], &doc).await.machines(Exit::Done);
        assert!(machines.iter().all(|m| m["reachable"] == true), "{n}: {machines:?}");
        assert_eq!(site.guests().len(), 4, "{n}");
        let mark = site.lab.world.journal.len();
        assert_eq!(site.run(&[], &doc).await.exit, Exit::Done, "{n}");
        assert_eq!(site.changes(mark), Vec::<String>::new(), "{n}");
        for guest in site.guests() {
            assert!(
                !guest.config.keys().any(|k| k.starts_with("unused")),
                "{n}: a disk was made twice: {guest:?}"
            );
        }
        for node in site.lab.pve.nodes() {
            let left: Vec<String> =
                site.lab.pve.volumes(&node).into_iter().filter(|v| v.contains("kubeline-seed")).collect();
            assert!(left.is_empty(), "{n}: {left:?}");
        }
        site.nothing_unknown();
    }
    println!("two operators: {MEETINGS} meetings, the runs ended {exits:?}, all converged");
}
