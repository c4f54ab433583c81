//! Machines in the care of Proxmox's HA manager.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use lab::pve::Generation;
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site_of};

async fn shared(generation: Generation) -> Site {
    site_of(|config| {
        config.generation = generation;
        config.shared = Some("shared".into());
    })
    .await
}

/// Two load balancers of a hard pool, a worker and the NFS server, which is left out of it.
fn document(site: &Site) -> Value {
    let mut doc = site.small();
    doc["spec"]["proxmox"]["storage"] = json!("shared");
    doc["spec"]["proxmox"]["ha"] = json!({ "pools": ["lb", "prod"], "maxRestart": 2 });
    doc
}

fn names(site: &Site, kind: &str) -> Vec<String> {
    site.lab.pve.ha()[kind].keys().cloned().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_for_kept_and_gone() {
    for generation in [Generation::V9, Generation::V8] {
        let site = shared(generation).await;
        let doc = document(&site);
        let first = site.run(&[], &doc).await;
        assert_eq!(first.machines(Exit::Done).len(), 4);
        assert_eq!(names(&site, "resources"), ["vm:3000", "vm:3001", "vm:3002"]);
        let nine = generation == Generation::V9;
        let (rules, groups): (&[&str], &[&str]) =
            if nine { (&["kubeline-demo-apart-lb"], &[]) } else { (&[], &["kubeline-demo"]) };
        assert_eq!((names(&site, "rules"), names(&site, "groups")), (owned(rules), owned(groups)));
        let ha = site.lab.pve.ha();
        assert_eq!(ha["resources"]["vm:3000"]["max_restart"], 2);
        if nine {
            let rule = &ha["rules"]["kubeline-demo-apart-lb"];
            assert_eq!(
                (&rule["affinity"], &rule["resources"]),
                (&json!("negative"), &json!("vm:3000,vm:3001"))
            );
        } else {
            assert_eq!(ha["resources"]["vm:3000"]["group"], "kubeline-demo");
        }
        let mark = site.lab.world.journal.len();
        let second = site.run_until(&[], &first.stdout, None).await;
        assert_eq!((second.exit, &second.stdout), (Exit::Done, &first.stdout), "{}", second.stderr);
        let check = site.run_until(&["check"], &first.stdout, None).await;
        assert_eq!(check.exit, Exit::Done, "{}", check.stdout);
        assert_eq!(site.changes(mark), Vec::<String>::new());

        // It is changed, and a machine is switched off and on again through its manager.
        let mut other = doc.clone();
        other["spec"]["proxmox"]["ha"]["maxRestart"] = json!(3);
        other["spec"]["pools"][0]["cores"] = json!(2);
        let run = site.run(&["--restart"], &other).await;
        assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
        assert_eq!(site.lab.pve.ha()["resources"]["vm:3001"]["max_restart"], 3);
        assert_eq!(site.run(&["plan"], &other).await.stdout, "pve-vm: nothing to do\n");

        // The manager moved one: it is told, and stays there.
        let at = site.guests().into_iter().find(|g| g.vmid == 3002).unwrap().node;
        let to = site.lab.pve.nodes().into_iter().find(|n| *n != at).unwrap();
        site.lab.pve.moved(3002, &to);
        let check = site.run_until(&["check"], &run.stdout, None).await;
        assert_eq!(check.exit, Exit::Differs, "{}", check.stdout);
        assert!(
            check.stdout.contains(&format!("was on the Proxmox node {at} and is on {to}")),
            "{}",
            check.stdout
        );
        let mark = site.lab.world.journal.len();
        let stays = site.run_until(&[], &run.stdout, None).await;
        assert_eq!(stays.exit, Exit::Done, "{}", stays.stderr);
        assert_eq!(site.changes(mark), Vec::<String>::new());

        // It gave one up: told, with the way out, and left alone.
        site.lab.pve.ha_error("vm:3000");
        let check = site.run(&["check"], &other).await;
        assert!(check.exit == Exit::Differs && check.stdout.contains("gave it up"), "{}", check.stdout);
        let held = site.run(&[], &other).await;
        assert_eq!(held.exit, Exit::Precondition, "{}", held.stderr);
        assert!(held.stderr.contains("ha-manager set vm:3000 --state disabled"), "{}", held.stderr);

        // What somebody else put there stays; what is ours goes with the document's wish.
        site.lab.pve.ha_foreign("vm:3003");
        let mut without = other.clone();
        without["spec"]["proxmox"].as_object_mut().unwrap().remove("ha");
        let run = site.run(&[], &without).await;
        assert_eq!(names(&site, "resources"), ["vm:3003"], "{}", run.stderr);
        assert_eq!((names(&site, "rules").len(), names(&site, "groups").len()), (0, 0));
        let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &without).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
        site.nothing_unknown();
    }
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_each_step() {
    let site = shared(Generation::V9).await;
    let with = document(&site);
    let mut without = with.clone();
    without["spec"]["proxmox"].as_object_mut().unwrap().remove("ha");
    site.run(&[], &without).await.doc(Exit::Done);
    let none = site.lab.pve.ha();
    site.run(&[], &with).await.doc(Exit::Done);
    let all = site.lab.pve.ha();
    let mut count = 0;
    for (doc, wanted, back, before) in [(&without, &none, &with, &all), (&with, &all, &without, &none)] {
        let mut k = 1;
        loop {
            assert_eq!(&site.lab.pve.ha(), before, "k = {k}");
            let killed = site.run_until(&[], &doc.to_string(), Some(k)).await;
            let again = site.run(&[], doc).await;
            assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
            assert_eq!(&site.lab.pve.ha(), wanted, "k = {k}");
            site.run(&[], back).await.doc(Exit::Done);
            if !killed.crashed {
                break;
            }
            (k, count) = (k + 1, count + 1);
        }
        site.run(&[], doc).await.doc(Exit::Done);
    }
    println!("HA: {count} boundaries, {count} converged");
    let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &with).await;
    assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
    assert_eq!(site.lab.pve.ha(), none);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_leaves_and_one_made_anew() {
    let site = shared(Generation::V9).await;
    let doc = document(&site);
    site.run(&[], &doc).await.doc(Exit::Done);
    let all = site.lab.pve.ha();
    let anew = site.run(&["replace", "demo-lb-1", "--yes"], &doc).await;
    assert_eq!(anew.exit, Exit::Done, "{}", anew.stderr);
    site.run(&[], &doc).await.doc(Exit::Done);
    assert_eq!(site.lab.pve.ha(), all);
    let mut less = doc.clone();
    less["spec"]["pools"][0]["count"] = json!(1);
    site.run(&[], &less).await.doc(Exit::Done);
    let pruned = site.run(&["destroy", "--yes", "--prune"], &less).await;
    assert_eq!(pruned.exit, Exit::Done, "{}", pruned.stderr);
    assert_eq!(names(&site, "resources"), ["vm:3000", "vm:3002"]);
    assert_eq!(names(&site, "rules"), Vec::<String>::new(), "one has nobody to keep apart from");
    assert_eq!(site.run(&["plan"], &less).await.stdout, "pve-vm: nothing to do\n");
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manager_takes_its_time() {
    let site = site_of(|config| {
        config.shared = Some("shared".into());
        config.clock = lab::Clock::scaled(0.05);
    })
    .await;
    let mut doc = document(&site);
    doc["spec"]["pools"].as_array_mut().unwrap().truncate(1);
    doc["spec"]["proxmox"]["ha"] = json!({});
    // A rule right after the first resource is refused until the manager knows its nodes.
    let run = site.run(&[], &doc).await;
    assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
    assert_eq!(names(&site, "rules"), ["kubeline-demo-apart-lb"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_storage_is_refused() {
    let site = shared(Generation::V9).await;
    let mut doc = document(&site);
    doc["spec"]["proxmox"]["storage"] = json!("local-lvm");
    let run = site.run(&[], &doc).await;
    assert_eq!((run.exit, site.changes(0).len()), (Exit::Precondition, 0), "{}", run.stderr);
    assert!(run.stderr.contains("the storage local-lvm is local to pve1"), "{}", run.stderr);
}
