//! pve-vm against the lab: the seven laws, as every tool keeps them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use lab::pve::Generation;
use lab::{Action, Fault, Window};
use laws::pve::Site;
use laws::sweep::{Row, Table, sweep};
use laws::{Case, Trouble};
use pve_vm::PveVmTool;
use serde_json::{Value, json};
use stage::Exit;

/// How many steps of a sweep a run is killed after by default.
const AT_MOST: usize = 8;

/// Two machines in two pools, one with a data disk, in a resource pool that does not exist yet.
fn small(site: &Site) -> Value {
    let mut doc = site.lab.document();
    let pools = doc["spec"]["pools"].as_array_mut().unwrap();
    pools.retain(|p| ["lb", "nfs"].contains(&p["name"].as_str().unwrap()));
    pools[0]["count"] = json!(1);
    for gone in ["kubernetes", "cni", "storage", "ingress", "observability", "backup", "loadBalancer"] {
        doc["spec"].as_object_mut().unwrap().remove(gone);
    }
    doc
}

/// One load balancer, which is a container in the care of the HA manager.
fn container(site: &Site) -> Value {
    let mut doc = small(site);
    doc["spec"]["pools"].as_array_mut().unwrap().truncate(1);
    doc["spec"]["pools"][0]["kind"] = json!("lxc");
    doc["spec"]["proxmox"]["storage"] = json!("shared");
    doc["spec"]["proxmox"]["ha"] = json!({});
    doc["spec"]["proxmox"]["containerTemplate"] = json!({
        "url": "https://mirror.lab.example/debian-13-standard_13.1-2_amd64.tar.zst",
        "checksum": format!("sha512:{}", "ab".repeat(64)),
        "storage": "local",
    });
    doc
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws_with_a_container() {
    let case = || async {
        let site = Site::with(|config| config.shared = Some("shared".into())).await.unwrap();
        let doc = container(&site);
        site.case(&doc)
    };
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let lock = "cfs-lock 'storage-shared' error: got lock request timeout";
    let troubles = [
        trouble(
            "a storage's lock times out",
            pve("POST /nodes/pve1/lxc", Action::TaskEnd(lock.into())),
            &[Exit::Done],
        ),
        trouble(
            "it is made and the answer lost",
            pve("POST /nodes/pve1/lxc", Action::DropAfter),
            &[Exit::Done],
        ),
        trouble(
            "its list of tasks is late",
            pve("/tasks", Action::Status(595, "no route".into())),
            &[Exit::Done],
        ),
        trouble(
            "its key is noted and the answer lost",
            pve("PUT /nodes/pve1/lxc/3000/config", Action::StatusAfter(596, "Connection timed out".into())),
            &[Exit::Done],
        ),
    ];
    let troubles: Vec<Trouble> = troubles
        .into_iter()
        .chain([trouble(
            "the HA manager has it and the answer is lost",
            pve("POST /cluster/ha/resources", Action::DropAfter),
            &[Exit::Done],
        )])
        .collect();
    let summary = laws::check::<PveVmTool>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
}

/// Two load balancers that the HA manager keeps, and keeps apart: by a rule, or by a group before 9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_laws_with_machines_under_ha() {
    let mut rows: Vec<Row> = Vec::new();
    for (what, generation) in [("HA, 9", Generation::V9), ("HA, 8", Generation::V8)] {
        let case = || async {
            let set = |config: &mut lab::Config| {
                config.generation = generation;
                config.shared = Some("shared".into());
            };
            let site = Site::with(set).await.unwrap();
            let mut doc = small(&site);
            doc["spec"]["pools"].as_array_mut().unwrap().truncate(1);
            doc["spec"]["pools"][0]["count"] = json!(2);
            doc["spec"]["proxmox"]["storage"] = json!("shared");
            doc["spec"]["proxmox"]["ha"] = json!({});
            site.case(&doc)
        };
        let row = sweep::<PveVmTool>(what, &[], AT_MOST, case).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(row.steps > 12, "{} steps: the HA manager has none of them", row.steps);
        rows.push(row);
    }
    println!("{}", Table(&rows));
    rows.into_iter().for_each(|row| row.held().unwrap_or_else(|e| panic!("{e}")));
}

async fn case() -> Case {
    let site = Site::start().await.unwrap();
    let doc = small(&site);
    site.case(&doc)
}

fn pve(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Pve, matching: matching.into(), skip: 0, times: 1, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let lock = "can't lock file '/var/lock/qemu-server/lock-9000.conf' - got timeout";
    let forbidden = "Permission check failed (/vms/9000, VM.Clone)";
    let (done, transient) = ([Exit::Done], [Exit::Transient]);
    let troubles = [
        trouble("a template's lock times out", pve("/clone", Action::TaskEnd(lock.into())), &done),
        trouble("a clone is done and its answer lost", pve("/clone", Action::DropAfter), &done),
        trouble(
            "the login may not clone",
            pve("/clone", Action::Status(403, forbidden.into())),
            &[Exit::Precondition],
        ),
        trouble(
            "the cluster loses its quorum",
            pve("/resize", Action::Status(500, "cluster not ready - no quorum?".into())),
            &done,
        ),
        trouble(
            "a disk fails",
            pve("/resize", Action::TaskEnd("lvextend: failed".into())),
            &[Exit::Precondition],
        ),
        trouble(
            "pveproxy gives up on a start that runs",
            pve("/status/start", Action::StatusAfter(596, "Connection timed out".into())),
            &done,
        ),
        trouble("Proxmox hangs", pve("/status/start", Action::Hang), &transient),
    ];
    let summary = laws::check::<PveVmTool>(&[], &troubles, case).await.unwrap_or_else(|e| panic!("{e}"));
    println!("{summary}");
}
