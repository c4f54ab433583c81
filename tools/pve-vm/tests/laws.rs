//! pve-vm against the lab: the seven laws, as every tool keeps them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use lab::{Action, Fault, Window};
use laws::pve::Site;
use laws::{Case, Trouble};
use pve_vm::PveVmTool;
use serde_json::{Value, json};
use stage::Exit;

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
