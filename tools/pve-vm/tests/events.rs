//! What happens to the world in the middle of a build, at every request of it: the run ends soon, well or in its exit
//! code, says which machine or node and what to do next, and the run after it repairs without touching what is
//! somebody else's.
//!
//! By default a sample; `KUBELINE_SWEEP=all` tries every pair of a request and an event.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lab::pve::GuestView;
use lab::{Action, Clock, Event, Fault, Window};
use stage::Exit;
use support::{Run, Site, helps, requests, site_of};

const DESTROY: &[&str] = &["destroy", "--yes", "--delete-data", "demo-nfs-1"];
/// Every how many pairs one is tried by default.
const STEP: usize = 29;
/// A guest that somebody else makes with the name of one of our machines.
const NAMESAKE: u32 = 500;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    QuorumLost,
    NodeOff(&'static str),
    SomebodysGuestAtTheId,
    SomebodysGuestOfTheName,
    Moved,
    SwitchedOff,
    Restarted,
}

const ALL: &[What] = &[
    What::QuorumLost,
    What::NodeOff("pve1"),
    What::NodeOff("pve2"),
    What::SomebodysGuestAtTheId,
    What::SomebodysGuestOfTheName,
    What::Moved,
    What::SwitchedOff,
    What::Restarted,
];

impl What {
    /// Lets it happen; false where there is nothing yet that it could happen to.
    fn happens(self, site: &Arc<Site>) -> bool {
        let pve = &site.lab.pve;
        let running = || site.guests().into_iter().find(|g| g.running).map(|g| g.vmid);
        match self {
            What::QuorumLost => pve.cut_off(true),
            What::NodeOff(node) => pve.node_off(node),
            What::SomebodysGuestAtTheId => {
                let taken: BTreeSet<u32> = pve.view().into_iter().map(|g| g.vmid).collect();
                let Some(free) = (3000..3004).find(|id| !taken.contains(id)) else { return false };
                pve.add_foreign(free, "somebodys", "pve2");
            }
            What::SomebodysGuestOfTheName => pve.add_foreign(NAMESAKE, "demo-lb-2", "pve3"),
            What::Moved => {
                let Some(guest) = site.guests().into_iter().find(|g| pve.can_move(g.vmid)) else {
                    return false;
                };
                pve.moved(guest.vmid, if guest.node == "pve3" { "pve2" } else { "pve3" });
            }
            What::SwitchedOff | What::Restarted => {
                let Some(vmid) = running() else { return false };
                let site = site.clone();
                tokio::spawn(async move {
                    match self {
                        What::Restarted => site.lab.pve.restarted(vmid).await,
                        _ => site.lab.pve.switched_off(vmid).await,
                    }
                });
            }
        }
        true
    }

    /// The exits that are right, and a word that a message must have.
    fn judge(self, run: &Run) -> Result<(), String> {
        let (exits, word): (&[Exit], &str) = match self {
            What::QuorumLost => (&[Exit::Done, Exit::Transient], "quorum"),
            What::NodeOff(node) => (&[Exit::Done, Exit::Partial, Exit::Transient, Exit::Precondition], node),
            What::SomebodysGuestAtTheId => (&[Exit::Done, Exit::Precondition], "untouched"),
            What::SomebodysGuestOfTheName => (&[Exit::Done, Exit::Precondition], "demo-lb-2"),
            What::Moved | What::SwitchedOff | What::Restarted => (&[Exit::Done], ""),
        };
        if !exits.contains(&run.exit) {
            return Err(format!("{:?} is not its exit", run.exit));
        }
        if run.exit != Exit::Done && !(run.stderr.contains(word) && helps(&run.stderr)) {
            return Err(format!("the message lacks {word:?}, a machine or node, or a hint"));
        }
        // What cannot come is not waited for.
        if self != What::QuorumLost && run.stderr.contains("--timeout") {
            return Err("it waited until the time was up".to_owned());
        }
        Ok(())
    }

    /// The operator puts it right; a foreign guest must be as it was made.
    fn healed(self, site: &Site) -> Result<(), String> {
        let pve = &site.lab.pve;
        match self {
            What::QuorumLost => pve.cut_off(false),
            What::NodeOff(node) => pve.node_on(node).map_err(|e| e.to_string())?,
            What::SomebodysGuestAtTheId | What::SomebodysGuestOfTheName => {
                let foreign: Vec<GuestView> =
                    pve.view().into_iter().filter(|g| g.name == "somebodys" || g.vmid == NAMESAKE).collect();
                for guest in foreign {
                    if guest.running || guest.pool.is_some() || guest.config.len() != 3 {
                        return Err(format!("somebody else's guest was touched: {guest:?}"));
                    }
                    pve.destroyed_by_root(guest.vmid);
                }
            }
            What::Moved | What::SwitchedOff | What::Restarted => {}
        }
        Ok(())
    }
}

/// An event at the first request that has this in its line and finds something that it can happen to, and whether it
/// happened.
fn at(site: &Arc<Site>, matching: &str, what: What) -> Arc<AtomicBool> {
    let happened = Arc::new(AtomicBool::new(false));
    let (told, weak): (_, Weak<Site>) = (happened.clone(), Arc::downgrade(site));
    let event = Event::new(move || {
        let site = weak.upgrade().unwrap();
        if !told.load(Ordering::SeqCst) {
            told.store(what.happens(&site), Ordering::SeqCst);
        }
    });
    site.lab.world.faults.inject(Fault {
        window: Window::Pve,
        matching: matching.to_owned(),
        skip: 0,
        times: usize::MAX,
        action: Action::Meanwhile(event),
    });
    happened
}

/// Runs until all is well; does what a hint tells root to do.
async fn repaired(site: &Site) -> Result<(), String> {
    for _ in 0..3 {
        let run = site.run(&["--timeout", "60s"], &site.small()).await;
        if run.exit == Exit::Done {
            return Ok(());
        }
        // A node that comes back switches its machines on by itself: not what the run saw.
        if run.exit == Exit::Transient && run.stderr.contains("it was switched on meanwhile") {
            continue;
        }
        let half = run.stderr.split("qm unlock ").nth(1);
        let half: Option<u32> = half.and_then(|rest| rest.split(' ').next()?.trim().parse().ok());
        // Root looks before the command is run, as the hint says.
        match site.lab.pve.view().into_iter().find(|g| Some(g.vmid) == half) {
            Some(guest) if locked(&guest) => site.lab.pve.destroyed_by_root(guest.vmid),
            Some(guest) => return Err(format!("{guest:?} is no half clone: {}", run.stderr)),
            None => return Err(format!("not repaired: {:?}: {}", run.exit, run.stderr)),
        }
    }
    Err("not repaired by three runs".to_owned())
}

/// A clone that has no end yet.
fn locked(guest: &GuestView) -> bool {
    guest.config.get("lock").is_some_and(|lock| lock == "clone")
}

/// Each machine once, on and answering; nothing left over; and another run changes nothing.
async fn whole(site: &Site) -> Result<(), String> {
    let mark = site.lab.world.journal.len();
    let run = site.run(&[], &site.small()).await;
    let machines = run.machines(Exit::Done);
    if !site.changes(mark).is_empty() {
        return Err(format!("it goes on changing: {:?}", site.changes(mark)));
    }
    let mut names: Vec<String> = site.guests().into_iter().map(|g| g.name).collect();
    names.sort();
    if names != ["demo-lb-1", "demo-lb-2", "demo-nfs-1", "demo-prod-1"] {
        return Err(format!("the machines are {names:?}"));
    }
    if machines.iter().any(|m| m["reachable"] != true || m["hostKeys"].as_array().unwrap().len() != 1) {
        return Err(format!("{machines:#?}"));
    }
    let seeds: Vec<String> = ["pve1", "pve2", "pve3"]
        .iter()
        .flat_map(|n| site.lab.pve.volumes(n))
        .filter(|v| v.contains(":iso/"))
        .collect();
    if !seeds.is_empty() {
        return Err(format!("seeds are left: {seeds:?}"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_happens_at_every_request() {
    let all = std::env::var("KUBELINE_SWEEP").is_ok_and(|v| v == "all");
    // What takes no time is hardly ever met half done.
    let clock = if all { Clock::scaled(0.005) } else { Clock::ZERO };
    let site = Arc::new(site_of(|config| config.clock = clock).await);
    let requests = requests(&site).await;
    let pairs: Vec<(&String, What)> =
        ALL.iter().flat_map(|what| requests.iter().map(move |(matching, _)| (matching, *what))).collect();
    let step = if all { 1 } else { STEP };
    let mut ends: BTreeMap<What, BTreeMap<String, usize>> = BTreeMap::new();
    let (mut tried, mut wrong) = (0, Vec::new());
    for (matching, what) in pairs.iter().step_by(step) {
        let name = format!("{what:?} at {matching}");
        let gone = site.run(DESTROY, &site.small()).await;
        assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{name}: {}", gone.stderr);
        let happened = at(&site, matching, *what);
        let timeout = if *what == What::QuorumLost { "2s" } else { "60s" };
        let run = site.run(&["--timeout", timeout], &site.small()).await;
        site.lab.world.faults.clear();
        let happened = happened.load(Ordering::SeqCst);
        let judged = what.judge(&run);
        let healed = what.healed(&site);
        let repaired = repaired(&site).await;
        let whole = if repaired.is_ok() { whole(&site).await } else { Ok(()) };
        for result in [judged, healed, repaired, whole] {
            wrong.extend(result.err().map(|why| format!("{name}: {why}; it said: {}", run.stderr)));
        }
        let end = if happened { format!("{:?}", run.exit) } else { "nothing there yet".to_owned() };
        *ends.entry(*what).or_default().entry(end).or_default() += 1;
        tried += 1;
    }
    println!("{tried} of {} pairs of {} requests and events: {ends:?}", pairs.len(), requests.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    site.nothing_unknown();
}

/// A build of slow machines to which something happens while they boot.
async fn while_booting(what: What) -> (Arc<Site>, Run, Duration) {
    let site = Arc::new(site_of(|config| config.clock = Clock::scaled(0.5)).await);
    // Only what waits for a machine asks its agent.
    let happened = at(&site, "/agent/", what);
    let begun = Instant::now();
    let run = site.run(&["--timeout", "60s"], &site.small()).await;
    assert!(happened.load(Ordering::SeqCst), "{}", run.stderr);
    (site, run, begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_while_its_machine_boots() {
    let (site, run, took) = while_booting(What::NodeOff("pve2")).await;
    let machines = run.machines(Exit::Partial);
    let on = |node: &str| machines.iter().filter(move |m| m["node"] == node).cloned().collect::<Vec<_>>();
    assert!(on("pve2").iter().all(|m| m["reachable"] == false) && !on("pve2").is_empty(), "{machines:#?}");
    assert!(on("pve1").iter().chain(&on("pve3")).all(|m| m["reachable"] == true), "the others go on");
    assert!(run.stderr.contains("the Proxmox node pve2 went off meanwhile"), "{}", run.stderr);
    assert!(run.stderr.contains("hint: switch pve2 on, then run again"), "{}", run.stderr);
    println!("a node dies while its machine boots: the run ends in part after {:.1} s", took.as_secs_f64());
    site.lab.pve.node_on("pve2").unwrap();
    repaired(&site).await.unwrap();
    whole(&site).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_switched_off_while_it_boots() {
    let (site, run, took) = while_booting(What::SwitchedOff).await;
    assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
    println!("a machine is switched off while it boots: it is up after {:.1} s", took.as_secs_f64());
    whole(&site).await.unwrap();
}

/// A node that comes back switches on what is half made: a machine that boots before its seed is in the drive has
/// another host key, and is told and begun anew rather than waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_switched_on_before_it_has_its_seed() {
    let site = Arc::new(site_of(|_| ()).await);
    let (weak, done) = (Arc::downgrade(&site), AtomicBool::new(false));
    let event = Event::new(move || {
        if !done.swap(true, Ordering::SeqCst) {
            let site = weak.upgrade().unwrap();
            let on = site.lab.pve.restarted(3001);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(on));
        }
    });
    let (matching, action) = ("POST /nodes/pve2/storage/local/upload".to_owned(), Action::Meanwhile(event));
    site.lab.world.faults.inject(Fault { window: Window::Pve, matching, skip: 0, times: 1, action });
    let run = site.run(&["--timeout", "30s"], &site.small()).await;
    assert_eq!(run.exit, Exit::Transient, "{}", run.stderr);
    assert!(run.stderr.contains("it was switched on meanwhile"), "{}", run.stderr);
    site.run(&["--timeout", "30s"], &site.small()).await.doc(Exit::Done);
    whole(&site).await.unwrap();
}

/// Between the end of cloud-init for good and the end of its seed a machine may go off, and its run with it: another seed
/// would be read by nobody, so that it goes on with the one that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_off_after_its_first_boot_was_proven() {
    let site = Arc::new(site_of(|_| ()).await);
    // After its key is noted its drive is changed once more: in that moment the seed would be taken out.
    const EJECT: &str = "POST /nodes/pve2/qemu/3001/config";
    let weak = Arc::downgrade(&site);
    let event = Event::new(move || {
        let (matching, action) = (EJECT.to_owned(), Action::Hang);
        let hang = Fault { window: Window::Pve, matching, skip: 0, times: usize::MAX, action };
        weak.upgrade().unwrap().lab.world.faults.inject(hang);
    });
    let (matching, action) = ("PUT /nodes/pve2/qemu/3001/config".to_owned(), Action::Meanwhile(event));
    site.lab.world.faults.inject(Fault { window: Window::Pve, matching, skip: 0, times: 1, action });
    let document = site.small();
    let struck = async {
        while site.lab.world.faults.left(EJECT).is_none_or(|left| left == usize::MAX) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        run = site.run(&["--timeout", "60s"], &document) => panic!("it ended before: {}", run.stderr),
        () = struck => {}
    }
    let machine = || site.guests().into_iter().find(|g| g.vmid == 3001).unwrap();
    let mark = machine().config["description"].clone();
    assert!(mark.contains("\"proven\":true"), "{mark}");
    site.lab.world.faults.clear();
    site.lab.pve.switched_off(3001).await;
    site.run(&["--timeout", "60s"], &site.small()).await.doc(Exit::Done);
    let after = machine();
    assert_eq!(after.config["description"], mark, "it kept its key");
    assert!(!after.config.values().any(|v| v.contains("kubeline-seed")), "{:?}", after.config);
    whole(&site).await.unwrap();
}

/// What a clone leaves whose worker died is in no pool: the login, whose rights come from the pool, cannot see it, and
/// root is told what it may be, how to see that, and what settles it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_broke_off_is_told_as_what_it_is() {
    for (back_at_once, exit) in [(true, Exit::Precondition), (false, Exit::Partial)] {
        let site = Arc::new(site_of(|config| config.clock = Clock::scaled(0.05)).await);
        let (weak, done) = (Arc::downgrade(&site), AtomicBool::new(false));
        let event = Event::new(move || {
            if !done.swap(true, Ordering::SeqCst) {
                let site = weak.upgrade().unwrap();
                site.lab.pve.node_off("pve2");
                // Its address is free again in a moment.
                tokio::spawn(async move {
                    while back_at_once && site.lab.pve.node_on("pve2").is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                });
            }
        });
        let (matching, action) = ("/nodes/pve2/tasks/UPID".to_owned(), Action::Meanwhile(event));
        let fault = Fault { window: Window::Pve, matching, skip: 0, times: usize::MAX, action };
        site.lab.world.faults.inject(fault);
        let run = site.run(&["--timeout", "60s"], &site.small()).await;
        site.lab.world.faults.clear();
        assert_eq!(run.exit, exit, "{}", run.stderr);
        let half: Vec<GuestView> = site.lab.pve.view().into_iter().filter(locked).collect();
        assert_eq!(half.iter().map(|g| &g.pool).collect::<Vec<_>>(), [&None], "{half:?}");
        if !back_at_once {
            site.lab.pve.node_on("pve2").unwrap();
        }
        // The run that was at it is told so at once, each later one when it looks.
        for told in [run, site.run(&[], &site.small()).await].iter().skip(usize::from(!back_at_once)) {
            assert_eq!(told.exit, Exit::Precondition, "{}", told.stderr);
            let id = half[0].vmid;
            for part in
                ["the task UPID:pve2:", "which never ended", &format!("qm unlock {id} && qm destroy {id}")]
            {
                assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
            }
        }
        let still: Vec<GuestView> = site.lab.pve.view().into_iter().filter(locked).collect();
        assert_eq!(still, half, "it is left untouched");
        repaired(&site).await.unwrap();
        whole(&site).await.unwrap();
        site.nothing_unknown();
    }
}

/// The same for a template: its making leaves a guest at an id of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_whose_making_broke_off_is_told_as_what_it_is() {
    let site = Arc::new(site_of(|config| config.clock = Clock::scaled(0.05)).await);
    let mut doc = site.small();
    doc["spec"]["proxmox"]["template"] = serde_json::json!({ "name": "made-here", "image": {
        "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
        "storage": "local" } });
    let (weak, done) = (Arc::downgrade(&site), AtomicBool::new(false));
    let event = Event::new(move || {
        if !done.swap(true, Ordering::SeqCst) {
            let site = weak.upgrade().unwrap();
            site.lab.pve.node_off("pve2");
            // Its address is free again in a moment.
            tokio::spawn(async move {
                while site.lab.pve.node_on("pve2").is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
    });
    // The kind of a task stands in its path, and its node before it.
    let (matching, action) = ("qmcreate%3A3098".to_owned(), Action::Meanwhile(event));
    site.lab.world.faults.inject(Fault { window: Window::Pve, matching, skip: 0, times: usize::MAX, action });
    let run = site.run(&["--timeout", "60s"], &doc).await;
    site.lab.world.faults.clear();
    for told in [run, site.run(&["--timeout", "60s"], &doc).await] {
        assert_eq!(told.exit, Exit::Precondition, "{}", told.stderr);
        for part in ["the task UPID:pve2:", "which never ended", "qm unlock 3098 && qm destroy 3098"] {
            assert!(told.stderr.contains(part), "{part}: {}", told.stderr);
        }
    }
    let half = site.lab.pve.view().into_iter().find(|g| g.vmid == 3098).unwrap();
    assert_eq!((half.config.get("lock").map(String::as_str), half.pool), (Some("create"), None));
    site.lab.pve.destroyed_by_root(3098);
    assert_eq!(site.run(&[], &doc).await.machines(Exit::Done).len(), 4);
    site.nothing_unknown();
}
