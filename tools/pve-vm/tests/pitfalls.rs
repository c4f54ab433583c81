//! What users of other tools for Proxmox have met, row by row, and the test that holds that pve-vm does not.
//!
//! The rows are reports against bpg/terraform-provider-proxmox, Telmate/terraform-provider-proxmox, CAPMOX
//! (ionos-cloud/cluster-api-provider-proxmox) and others. A test below sees that each row names tests that exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;
use cluster_doc::Document;
use lab::{Action, Fault, Window};
use pve_vm::args::Flags;
use pve_vm::seen::Seen;
use pve_vm::step::Step;
use pve_vm::{plan, want};
use serde_json::json;
use stage::{Exit, Plan};
use support::{Site, site};

/// Row, what happened to others, and the tests: a file of this crate and the name of a test in it.
const ROWS: &[(u32, &str, &[&str])] = &[
    (
        1,
        "parallel clones die on a lock of a second",
        &["faults every_request_meets_every_fault", "timing thirteen_machines_take_what_the_locks_allow"],
    ),
    (
        2,
        "a lock times out inside the clone's task, and half a machine stays",
        &[
            "laws keeps_the_seven_laws",
            "events a_clone_that_broke_off_is_told_as_what_it_is",
            "golden documents_and_worlds_give_plans",
        ],
    ),
    (
        3,
        "two machines with one id; a foreign one adopted",
        &[
            "build foreign_guests_are_not_touched",
            "operators a_seed_that_another_run_is_about_to_put_in_stays",
            "faults somebodys_guest_appears_at_an_id",
            "events everything_happens_at_every_request",
        ],
    ),
    (
        4,
        "a create is sent again, and what the first made is deleted",
        &["pitfalls a_create_whose_answer_is_lost_is_neither_repeated_nor_undone"],
    ),
    (
        5,
        "no such task, a moment after its start",
        &["pitfalls a_task_that_is_unknown_for_a_moment_is_waited_for"],
    ),
    (
        6,
        "596 for a long configuration call",
        &["pitfalls requests_are_in_order_and_ask_the_right_node", "faults every_request_meets_every_fault"],
    ),
    (7, "599 Too many redirections", &["faults every_request_meets_every_fault"]),
    (8, "an idle connection that the server has closed", &["faults every_request_meets_every_fault"]),
    (
        9,
        "WARNINGS taken for a failure",
        &["pitfalls warnings_are_told_and_a_start_that_failed_and_runs_is_one"],
    ),
    (10, "got no worker upid", &["faults every_request_meets_every_fault"]),
    (11, "a disk sent again takes its growth back", &["pitfalls no_disk_that_is_there_is_sent_again"]),
    (12, "a drive dropped by an update", &["pitfalls no_disk_that_is_there_is_sent_again"]),
    (
        13,
        "a resize before the clone was unlocked",
        &["pitfalls requests_are_in_order_and_ask_the_right_node"],
    ),
    (
        14,
        "a wait for an agent that is not there or may not be asked",
        &[
            "build thirteen_machines_twice_and_gone",
            "build an_image_with_an_agent_is_no_worse",
            "verbs the_printed_role_is_enough_and_no_more_is_asked",
        ],
    ),
    (15, "the address of docker0", &["src/apply/guest the_card_is_known_by_its_mac_address"]),
    (16, "a clone to another node from local storage", &["golden documents_and_worlds_give_plans"]),
    (17, "clones of one template to several nodes at once", &["pitfalls clones_across_nodes_go_one_by_one"]),
    (
        18,
        "a machine under HA cannot be destroyed",
        &["pitfalls a_machine_that_somebody_put_under_ha_goes_too"],
    ),
    (
        19,
        "somebody moved the machine meanwhile",
        &["faults a_machine_is_moved_or_restarted_by_somebody", "events everything_happens_at_every_request"],
    ),
    (
        20,
        "HA groups are gone in 9",
        &["ha asked_for_kept_and_gone", "laws keeps_the_laws_with_machines_under_ha"],
    ),
    (
        21,
        "an upload through another node is lost",
        &["pitfalls requests_are_in_order_and_ask_the_right_node"],
    ),
    (22, "a template with boot: c", &["pitfalls what_a_template_brings_along_is_put_right"]),
    (
        23,
        "templates and old statistics counted by the scheduler",
        &["src/observe/node templates_claim_no_memory_and_names_may_lack", "src/place memory_is_counted"],
    ),
    (24, "no options specified", &["build thirteen_machines_twice_and_gone"]),
    (25, "features of containers that want root", &["containers made_kept_and_gone"]),
    (26, ".img is no image to import", &["build templates_are_made_of_a_file_and_anew_of_another"]),
    (27, "VM.Monitor is gone in 9", &["verbs the_printed_role_is_enough_and_no_more_is_asked"]),
    (
        28,
        "keys encoded once too often or too seldom",
        &["build thirteen_machines_twice_and_gone", "src/options canonical_forms_compare"],
    ),
    (
        29,
        "tags in another order are a difference for ever",
        &["build thirteen_machines_twice_and_gone", "src/options canonical_forms_compare"],
    ),
    (
        30,
        "a change for cloud-init makes a new instance",
        &[
            "pitfalls a_change_for_cloud_init_comes_too_late_and_makes_no_new_instance",
            "golden documents_and_worlds_give_plans",
        ],
    ),
    (
        31,
        "a destroy hangs in a shutdown that nobody hears",
        &["pitfalls requests_are_in_order_and_ask_the_right_node"],
    ),
    (
        32,
        "a clone with the template's tags is taken for a template",
        &["pitfalls what_a_template_brings_along_is_put_right"],
    ),
    (
        33,
        "a login with rights on the pool may not see the new machine",
        &["build thirteen_machines_twice_and_gone"],
    ),
    (
        34,
        "a start fails, and the machine runs",
        &["pitfalls warnings_are_told_and_a_start_that_failed_and_runs_is_one"],
    ),
    (
        35,
        "a kernel hangs on a console that is not there",
        &["pitfalls what_a_template_brings_along_is_put_right"],
    ),
];

#[test]
fn every_row_has_its_tests() {
    let numbers: Vec<u32> = ROWS.iter().map(|(row, ..)| *row).collect();
    assert_eq!(numbers, (1..=35).collect::<Vec<u32>>());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (row, what, tests) in ROWS {
        assert!(!tests.is_empty(), "{row} {what}");
        for test in *tests {
            let (file, name) = test.split_once(' ').unwrap();
            let path = if file.starts_with("src/") { file.to_owned() } else { format!("tests/{file}") };
            let text = std::fs::read_to_string(root.join(format!("{path}.rs"))).unwrap_or_default();
            if !text.contains(&format!("fn {name}(")) {
                missing.push(format!("{row} {what}: {test}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

fn fault(site: &Site, matching: &str, times: usize, action: Action) {
    let matching = matching.to_owned();
    site.lab.world.faults.inject(Fault { window: Window::Pve, matching, skip: 0, times, action });
}

fn requests(site: &Site, since: usize) -> Vec<(String, String)> {
    let all = site.lab.world.journal.since(since).into_iter().filter(|e| e.window == Window::Pve);
    all.map(|e| (e.target, e.request)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_answer_is_lost_is_neither_repeated_nor_undone() {
    let lost = [
        Action::StatusAfter(596, "Connection timed out".into()),
        Action::StatusAfter(500, "got no worker upid - start worker failed".into()),
        Action::DropAfter,
    ];
    for action in lost {
        let site = site().await;
        let mut doc = site.small();
        doc["spec"]["proxmox"]["template"] = json!({ "name": "made-here", "image": {
            "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
            "storage": "local" } });
        fault(&site, "POST /nodes/pve1/qemu", 1, action.clone());
        let run = site.run(&[], &doc).await;
        assert_eq!(run.machines(Exit::Done).len(), 4, "{action:?}");
        let all = requests(&site, 0);
        let creates = all.iter().filter(|(_, r)| r == "POST /nodes/pve1/qemu").count();
        assert_eq!(creates, 1, "{action:?}: what was made is seen, not made again");
        assert!(!all.iter().any(|(_, r)| r.starts_with("DELETE /nodes/pve1/qemu/")), "{action:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_unknown_for_a_moment_is_waited_for() {
    let site = site().await;
    let unknown = Action::Status(400, "Parameter verification failed. upid: no such task".into());
    fault(&site, "/tasks/UPID", 20, unknown);
    let run = site.run(&[], &site.small()).await;
    assert_eq!(run.machines(Exit::Done).len(), 4, "{}", run.stderr);
    let clones = requests(&site, 0).into_iter().filter(|(_, r)| r.ends_with("/clone")).count();
    assert_eq!(clones, 4, "none is sent again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warnings_are_told_and_a_start_that_failed_and_runs_is_one() {
    let site = site().await;
    fault(&site, "/clone", 1, Action::TaskEndAfter("WARNINGS: 1".into()));
    fault(&site, "/status/start", 1, Action::TaskEndAfter("start failed: QEMU exited with code 1".into()));
    let run = site.run(&[], &site.small()).await;
    assert_eq!(run.machines(Exit::Done).len(), 4, "{}", run.stderr);
    assert!(run.stderr.contains("qmclone") && run.stderr.contains("WARN: injected"), "{}", run.stderr);
    let count = |end: &str| requests(&site, 0).into_iter().filter(|(_, r)| r.ends_with(end)).count();
    assert_eq!((count("/clone"), count("/status/start")), (4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_in_order_and_ask_the_right_node() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    let all = requests(&site, 0);
    let mut order: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut direct: Vec<&str> = Vec::new();
    for (target, request) in &all {
        let parts: Vec<&str> = request.split('/').collect();
        // Long calls are tasks. What puts a seed in, or notes a proof, moves no data; the first has to know at once
        // whether it was first.
        if request.starts_with("PUT ") && request.ends_with("/config") {
            direct.push(request.as_str());
        }
        if request.ends_with("/upload") {
            assert_eq!(parts[2], target, "{request}");
        }
        if let ["POST " | "PUT ", "nodes", _, "qemu", id, what @ ..] = parts.as_slice() {
            let what = what.last().copied().unwrap_or_default();
            if what != "clone" {
                order.entry((*id).to_owned()).or_default().push(what);
            }
        }
    }
    assert_eq!(order.len(), 4, "{all:#?}");
    direct.sort_unstable();
    let each: std::collections::BTreeSet<&str> = direct.iter().copied().collect();
    assert_eq!((direct.len(), each.len()), (8, 4), "two for each machine: {direct:?}");
    for (id, steps) in order {
        let at = |what: &str| steps.iter().position(|s| *s == what);
        assert!(at("config") < at("resize") && at("resize") < at("start"), "{id}: {steps:?}");
        assert_eq!(steps.iter().filter(|s| **s == "start").count(), 1, "{id}: {steps:?}");
    }
    let mark = site.lab.world.journal.len();
    site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
    let gone = requests(&site, mark);
    assert!(gone.iter().any(|(_, r)| r.ends_with("/status/stop")));
    assert!(!gone.iter().any(|(_, r)| r.ends_with("/status/shutdown")), "nobody is asked to shut down first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_somebody_put_under_ha_goes_too() {
    let site = site().await;
    let doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    site.lab.pve.put_under_ha(3000);
    let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
    assert_eq!((gone.exit, site.guests().len()), (Exit::Done, 0), "{}", gone.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_for_cloud_init_comes_too_late_and_makes_no_new_instance() {
    let site = site().await;
    let doc = site.small();
    let keys = |run: &support::Run| -> Vec<serde_json::Value> {
        run.machines(Exit::Done).iter().map(|m| m["hostKeys"].clone()).collect()
    };
    let before = keys(&site.run(&[], &doc).await);
    let mut other = doc.clone();
    other["spec"]["network"]["nameservers"] = json!(["192.0.2.53"]);
    other["spec"]["network"]["searchDomain"] = json!("other.example");
    // A restart comes along, and somebody else's too: what cloud-init finds then is what counts.
    other["spec"]["pools"][0]["cores"] = json!(2);
    let mark = site.lab.world.journal.len();
    let run = site.run(&["--restart"], &other).await;
    site.lab.pve.restarted(3002).await;
    let last = site.run(&[], &other).await;
    assert_eq!((&keys(&run), &keys(&last)), (&before, &before), "no machine is another instance");
    let machines = last.machines(Exit::Done);
    assert!(machines.iter().all(|m| m["reachable"] == true), "{machines:#?}");
    let changes = site.changes(mark);
    assert!(changes.iter().any(|r| r.ends_with("/3000/status/shutdown")), "{changes:#?}");
    assert!(!changes.iter().any(|r| r.contains("/upload") || r.contains("/cloudinit")), "{changes:#?}");
    for guest in site.guests() {
        let given =
            guest.config.iter().find(|(_, v)| v.contains("192.0.2.53") || v.contains("other.example"));
        assert_eq!(given, None, "{}", guest.name);
    }
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
}

/// The plan of a golden case, with another world.
fn planned(case: &Path, change: impl Fn(&mut Seen)) -> (Plan<Step>, Seen) {
    let doc = Document::parse(std::fs::read(case.join("document.json")).unwrap()).unwrap();
    let flags = std::fs::read_to_string(case.join("flags")).unwrap_or_default();
    let flags = Cli::parse_from(std::iter::once("pve-vm").chain(flags.lines())).flags;
    let design = want::design(&flags, &doc, &doc.spec(want::READS).unwrap()).unwrap();
    let mut seen: Seen = serde_json::from_slice(&std::fs::read(case.join("seen.json")).unwrap()).unwrap();
    change(&mut seen);
    (plan(&design, &seen), seen)
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn no_disk_that_is_there_is_sent_again() {
    let mut looked = 0;
    for case in std::fs::read_dir(golden("")).unwrap() {
        let (plan, seen) = planned(&case.unwrap().path(), |_| ());
        for step in plan.steps() {
            let Step::Configure { at, set, delete, .. } = step else { continue };
            let Some(guest) = seen.guests.iter().find(|g| g.vmid == at.vmid) else { continue };
            let disk = |o: &&String| pve_vm::options::is_drive(o) && guest.option(o).is_some();
            assert_eq!(set.keys().chain(delete).find(disk), None, "{step}");
            looked += 1;
        }
    }
    assert!(looked > 3, "{looked} machines are changed in all golden cases");
}

#[test]
fn what_a_template_brings_along_is_put_right() {
    let (plan, _) = planned(&golden("fresh"), |seen| {
        for config in seen.guests.iter_mut().filter_map(|g| g.config.as_mut()) {
            for (option, value) in [("boot", "c"), ("bootdisk", "scsi0"), ("tags", "pve-vm-template;prod")] {
                config.insert(option.to_owned(), value.to_owned());
            }
            config.remove("serial0");
            config.remove("vga");
        }
    });
    let mut looked = 0;
    for step in plan.steps() {
        let Step::Configure { set, .. } = step else { continue };
        if set.keys().eq(["protection"]) {
            continue;
        }
        assert_eq!(set["boot"], "order=scsi0");
        assert!(set["tags"].contains("pve-vm") && !set["tags"].contains("template"), "{}", set["tags"]);
        assert_eq!((set["serial0"].as_str(), set["vga"].as_str()), ("socket", "serial0"));
        looked += 1;
    }
    assert!(looked > 1, "{looked} machines");
}

#[test]
fn clones_across_nodes_go_one_by_one() {
    let (plan, _) = planned(&golden("shared"), |seen| {
        for node in seen.nodes.values_mut() {
            let storage = pve_vm::seen::Storage {
                kind: "dir".to_owned(),
                content: vec!["iso".to_owned()],
                ..Default::default()
            };
            node.storages.insert("seeds".to_owned(), storage);
        }
    });
    let mut last: BTreeMap<u32, usize> = BTreeMap::new();
    let mut looked = 0;
    for (n, (step, _, after)) in plan.reasons().enumerate() {
        let Step::Clone { at, source, template, .. } = step else { continue };
        if at.node == *source {
            continue;
        }
        if let Some(before) = last.insert(*template, n) {
            let text = format!("{after:?}");
            assert!(text.contains(&format!("StepId({before})")), "{step}: {text}");
            looked += 1;
        }
    }
    assert!(looked > 0, "no two clones cross nodes in that case");
}
