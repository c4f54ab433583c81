//! Killed after every step, and met by every fault: the next run makes the same world.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::time::Duration;

use lab::{Action, Fault, Window};
use stage::Exit;
use support::site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_after_every_step() {
    let site = site().await;
    let doc = site.small();
    let steps =
        serde_json::from_str::<serde_json::Value>(&site.run(&["plan", "--json"], &doc).await.stdout).unwrap();
    let steps = steps["steps"].as_array().unwrap().len();
    assert!(steps > 15, "{steps} steps");
    site.run(&[], &doc).await.doc(Exit::Done);
    let wanted = site.world();
    for k in 1..steps {
        let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
        let killed = site.run_until(&[], &doc.to_string(), Some(k)).await;
        assert!(killed.crashed, "k = {k}: {}", killed.stderr);
        let again = site.run(&[], &doc).await;
        assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
        assert_eq!(site.world(), wanted, "k = {k}");
        let mark = site.lab.world.journal.len();
        let third = site.run_until(&[], &again.stdout, None).await;
        assert_eq!((third.exit, &third.stdout), (Exit::Done, &again.stdout), "k = {k}: {}", third.stderr);
        assert_eq!(site.changes(mark), Vec::<String>::new(), "k = {k}");
    }
    println!("{} boundaries, all converged", steps - 1);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirteen_machines_killed_here_and_there() {
    let site = site().await;
    let mut doc = site.whole();
    site.run(&[], &doc).await.doc(Exit::Done);
    let wanted = site.world();
    let destroy = ["destroy", "--yes", "--delete-data", "demo-nfs-1"];
    for k in (1..65).step_by(9) {
        // The way down is killed as well.
        let killed = site.run_until(&destroy, &doc.to_string(), Some(k % 25 + 1)).await;
        assert!(killed.crashed, "{}", killed.stderr);
        let gone = site.run(&destroy, &doc).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
        let killed = site.run_until(&[], &doc.to_string(), Some(k)).await;
        assert!(killed.crashed, "k = {k}: {}", killed.stderr);
        let again = site.run(&[], &doc).await;
        assert_eq!(again.exit, Exit::Done, "k = {k}: {}", again.stderr);
        assert_eq!(site.world(), wanted, "k = {k}");
    }
    // A grow of two workers: killed after one step, again and again, it still gets there.
    doc["spec"]["pools"][2]["count"] = serde_json::json!(6);
    for k in 1..9 {
        let killed = site.run_until(&[], &doc.to_string(), Some(1)).await;
        let done = site.run(&["plan"], &doc).await.stdout == "pve-vm: nothing to do\n";
        assert!(killed.crashed || done, "k = {k}: {}", killed.stderr);
    }
    site.run(&[], &doc).await.doc(Exit::Done);
    assert_eq!(site.guests().len(), 15);
    for node in ["pve1", "pve2", "pve3"] {
        let on = |g: &&lab::pve::GuestView| g.node == node && g.tags.iter().any(|t| t == "worker");
        let workers = site.guests().iter().filter(on).count();
        assert!((2..=3).contains(&workers), "{workers} workers on {node}");
    }
    site.nothing_unknown();
}

fn faults() -> Vec<(&'static str, Action)> {
    let status = |code, text: &str| Action::Status(code, text.to_owned());
    let after = |code, text: &str| Action::StatusAfter(code, text.to_owned());
    let mut all = vec![
        ("GET /cluster/resources", Action::DropBefore),
        ("GET /nodes", status(596, "Connection timed out")),
    ];
    for request in ["/clone", "POST /nodes/pve1/qemu/3000/config", "/resize", "/status/start", "PUT /nodes"] {
        all.push((
            request,
            status(500, "can't lock file '/var/lock/qemu-server/lock-3000.conf' - got timeout"),
        ));
        all.push((request, status(500, "got no worker upid - start worker failed")));
        all.push((request, status(595, "Connection refused")));
        all.push((request, status(596, "Connection timed out")));
        all.push((request, after(596, "Connection timed out")));
        all.push((request, after(599, "Too many redirections")));
        all.push((request, Action::DropBefore));
        all.push((request, Action::DropAfter));
    }
    for request in ["/clone", "/resize", "/status/start"] {
        let lock = "can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout";
        all.push((request, Action::TaskEnd(lock.to_owned())));
        all.push((request, Action::TaskEnd("unexpected status".to_owned())));
    }
    for request in ["/tasks/", "/agent/file-read"] {
        all.push((request, status(596, "Connection timed out")));
        all.push((request, status(500, "QEMU guest agent is not running")));
        all.push((request, Action::DropBefore));
    }
    all.push(("/tasks/", Action::Delay(Duration::from_secs(1))));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_waited_out_or_repaired() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let wanted = site.world();
    for (matching, action) in faults() {
        let name = format!("{action:?} at {matching}");
        let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{name}: {}", gone.stderr);
        let fault = Fault { window: Window::Pve, matching: matching.to_owned(), skip: 0, times: 2, action };
        site.lab.world.faults.inject(fault);
        let run = site.run(&[], &doc).await;
        assert!([Exit::Done, Exit::Transient].contains(&run.exit), "{name}: {}", run.stderr);
        site.lab.world.faults.clear();
        let again = site.run(&[], &doc).await;
        assert_eq!(again.exit, Exit::Done, "{name}: {}", again.stderr);
        assert_eq!(site.world(), wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_refusal_is_told_with_what_helps() {
    let site = site().await;
    let text = "Permission check failed (/vms/9000, VM.Clone)".to_owned();
    let action = Action::Status(403, text);
    let fault = Fault { window: Window::Pve, matching: "/clone".into(), skip: 0, times: 1, action };
    site.lab.world.faults.inject(fault);
    let run = site.run(&[], &site.small()).await;
    assert_eq!((run.exit, run.stdout.as_str()), (Exit::Precondition, ""));
    assert!(
        run.stderr.contains("pveum acl modify /vms/9000 --users 'kubeline@pve' --tokens 'kubeline@pve!cli'"),
        "{}",
        run.stderr
    );
    let empty = site.run_until(&[], "", None).await;
    assert_eq!(empty.exit, Exit::Empty);
    let refused = site.run_until(&[], "{}", None).await;
    assert_eq!((refused.exit, refused.stdout.as_str()), (Exit::Refused, ""));
}
