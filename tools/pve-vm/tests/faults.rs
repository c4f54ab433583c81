//! Every request of a build meets every fault: the run ends well or in its exit code, says which machine or node and
//! what to do next, and the run after it repairs.
//!
//! By default a sample; `KUBELINE_SWEEP=all` tries every pair.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use lab::{Action, Fault, Window};
use stage::Exit;
use support::{Site, site};

const DESTROY: &[&str] = &["destroy", "--yes", "--delete-data", "demo-nfs-1"];
/// Every how many pairs of a request and a fault one is tried by default.
const STEP: usize = 23;

/// The requests of a build, one for each kind: a part of the line that names it, and whether it changes something.
async fn requests(site: &Site) -> Vec<(String, bool)> {
    let mark = site.lab.world.journal.len();
    site.run(&[], &site.small()).await.doc(Exit::Done);
    let mut kinds: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for entry in site.lab.world.journal.since(mark) {
        if entry.window != Window::Pve {
            continue;
        }
        let kind: Vec<&str> = entry
            .request
            .split('/')
            .map(|part| match part {
                _ if part.starts_with("UPID") => "UPID",
                _ if part.starts_with("pve") => "NODE",
                _ if part.parse::<u32>().is_ok() => "ID",
                _ if part.contains("%3A") || part.contains(':') => "VOLUME",
                part => part,
            })
            .collect();
        // A task's name is another one in each run.
        let matching = entry.request.split("UPID").next().unwrap();
        // So is a seed's, which ends in the digest of its key.
        let seed = matching.contains("kubeline-seed.").then(|| matching.rsplitn(3, '.').nth(2)).flatten();
        let matching = seed.unwrap_or(matching).to_owned();
        kinds.entry(kind.join("/")).or_insert((matching, entry.changing));
    }
    kinds.into_values().collect()
}

fn actions(changing: bool) -> Vec<Action> {
    let status = |code, text: &str| Action::Status(code, text.to_owned());
    let mut all = vec![
        status(500, "can't lock file '/var/lock/qemu-server/lock-3000.conf' - got timeout"),
        status(500, "cfs-lock 'storage-local' error: got lock request timeout"),
        status(500, "got no worker upid - start worker failed"),
        status(500, "cluster not ready - no quorum?"),
        status(500, "VM is locked (backup)"),
        status(500, "Configuration file 'nodes/pve1/qemu-server/3000.conf' does not exist"),
        status(403, "Permission check failed (/vms/3000, VM.Config.Disk)"),
        status(595, "Connection refused"),
        status(596, "Connection timed out"),
        status(597, ""),
        status(599, "Too many redirections"),
        Action::DropBefore,
        Action::DropAfter,
        Action::Hang,
    ];
    if changing {
        all.push(Action::StatusAfter(500, "got no worker upid - start worker failed".to_owned()));
        all.extend([596, 597, 599].map(|code| Action::StatusAfter(code, String::new())));
        let ends = [
            "can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout",
            "unexpected status",
            "unable to read tail (got 0 bytes)",
        ];
        all.extend(ends.map(|end| Action::TaskEnd(end.to_owned())));
        all.extend(["WARNINGS: 1", "VANISH"].map(|end| Action::TaskEndAfter(end.to_owned())));
    }
    all
}

/// Names a machine or node, or else who was asked, and what to do next.
fn helps(stderr: &str) -> bool {
    let names = ["demo-", "node pve", "on pve", "https://", "pool k8s-prod"];
    names.iter().any(|n| stderr.contains(n)) && stderr.contains("hint: ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_meets_every_fault() {
    let site = site().await;
    let requests = requests(&site).await;
    assert!(requests.len() > 20, "{requests:#?}");
    let wanted = site.world();
    let pairs: Vec<(&String, Action)> = requests
        .iter()
        .flat_map(|(matching, changing)| actions(*changing).into_iter().map(move |a| (matching, a)))
        .collect();
    let step = if std::env::var("KUBELINE_SWEEP").is_ok_and(|v| v == "all") { 1 } else { STEP };
    let mut ends: BTreeMap<String, usize> = BTreeMap::new();
    let (mut tried, mut wrong) = (0, Vec::new());
    for (matching, action) in pairs.iter().step_by(step) {
        let what = format!("{action:?} at {matching}");
        let gone = site.run(DESTROY, &site.small()).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{what}: {}", gone.stderr);
        let fault = Fault {
            window: Window::Pve,
            matching: (*matching).clone(),
            skip: 0,
            times: 1,
            action: action.clone(),
        };
        site.lab.world.faults.inject(fault);
        let args: &[&str] = if *action == Action::Hang { &["--timeout", "3s"] } else { &[] };
        let run = site.run(args, &site.small()).await;
        let struck = site.lab.world.faults.left(matching) == Some(0);
        // The agent is asked beside SSH, which may be the first to answer.
        assert!(struck || matching.contains("/agent/"), "{what} struck nothing");
        site.lab.world.faults.clear();
        let well = [Exit::Done, Exit::Transient, Exit::Precondition].contains(&run.exit);
        if !well || (run.exit != Exit::Done && !helps(&run.stderr)) {
            wrong.push(format!("{what}: {:?}: {}", run.exit, run.stderr));
        }
        let again = site.run(&[], &site.small()).await;
        assert_eq!(again.exit, Exit::Done, "{what}: {}", again.stderr);
        assert_eq!(site.world(), wanted, "{what}");
        let end = if struck { format!("{:?}", run.exit) } else { "not asked".to_owned() };
        *ends.entry(end).or_default() += 1;
        tried += 1;
    }
    println!(
        "{tried} of {} pairs of {} requests and their faults, all repaired: {ends:?}",
        pairs.len(),
        requests.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    site.nothing_unknown();
}

/// Waits until the lab was asked this, `times` times.
async fn asked(site: &Site, part: &str, times: usize) {
    let count = || site.lab.world.journal.since(0).iter().filter(|e| e.request.contains(part)).count();
    while count() < times {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A build during which something happens to the world once `part` was asked.
async fn meanwhile(site: &Site, part: &str, happens: impl FnOnce(&Site)) -> support::Run {
    let doc = site.small();
    let (run, ()) = tokio::join!(site.run(&["--timeout", "10s"], &doc), async {
        asked(site, part, 1).await;
        happens(site);
    });
    run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebodys_guest_appears_at_an_id() {
    let site = site().await;
    // The clone to 3001 waits while somebody takes its id.
    let action = Action::Status(500, "got no worker upid - start worker failed".to_owned());
    site.lab.world.faults.inject(Fault {
        window: Window::Pve,
        matching: "qemu/9001/clone".into(),
        skip: 0,
        times: 1,
        action,
    });
    let run =
        meanwhile(&site, "qemu/9001/clone", |site| site.lab.pve.add_foreign(3001, "somebodys", "pve2")).await;
    assert_eq!(run.exit, Exit::Precondition, "{}", run.stderr);
    assert!(run.stderr.contains("3001") && run.stderr.contains("untouched"), "{}", run.stderr);
    let foreign = site.lab.pve.view().into_iter().find(|g| g.vmid == 3001).unwrap();
    assert_eq!((foreign.name.as_str(), foreign.config.contains_key("description")), ("somebodys", false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_off_in_mid_build() {
    let site = site().await;
    let run = meanwhile(&site, "/status/start", |site| site.lab.pve.node_off("pve2")).await;
    let ends = [Exit::Transient, Exit::Precondition, Exit::Partial];
    assert!(ends.contains(&run.exit), "{:?}: {}", run.exit, run.stderr);
    assert!(run.stderr.contains("pve2"), "{}", run.stderr);
    site.lab.pve.node_on("pve2").unwrap();
    let again = site.run(&[], &site.small()).await;
    assert_eq!(again.machines(Exit::Done).len(), 4);
    assert!(again.machines(Exit::Done).iter().all(|m| m["reachable"] == true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_moved_or_restarted_by_somebody() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let keys = |run: &support::Run| -> BTreeSet<String> {
        run.machines(Exit::Done).iter().map(|m| m["hostKeys"][0].as_str().unwrap().to_owned()).collect()
    };
    let before = keys(&site.run(&[], &doc).await);
    site.lab.pve.moved(3000, "pve3");
    site.lab.pve.restarted(3001).await;
    let after = site.run(&[], &doc).await;
    assert_eq!(keys(&after), before, "no first boot happens twice");
    assert_eq!(after.machines(Exit::Done)[0]["node"], "pve3");
    assert!(after.machines(Exit::Done).iter().all(|m| m["reachable"] == true), "and no address is lost");
}
