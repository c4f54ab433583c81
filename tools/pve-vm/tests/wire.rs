//! Every request that pve-vm sends, against the published schema of Proxmox VE 8.4 and 9.1.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on ends, and tells its figures"
)]

#[path = "support/schema.rs"]
mod schema;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lab::pve::{Acl, Generation, RawRequest};
use schema::Published;
use serde_json::{Value, json};
use stage::Exit;
use support::{Site, site_of};

fn published(generation: Generation) -> Option<Published> {
    let folder = std::env::var_os("KUBELINE_FACTS").map(PathBuf::from).or_else(|| {
        let start = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        start.ancestors().filter_map(|a| a.parent()).map(|a| a.join("shared/facts")).find(|p| p.is_dir())
    });
    let Some(folder) = folder else {
        println!("skipped: no shared/facts folder beside the workspace (KUBELINE_FACTS names one)");
        return None;
    };
    let name = if generation == Generation::V8 { "pve-8.4.json" } else { "pve-9.1.json" };
    let text = std::fs::read_to_string(folder.join("pve-api").join(name)).unwrap();
    Some(Published::new(serde_json::from_str(&text).unwrap()))
}

const ALL: &str = "Datastore.AllocateSpace Datastore.AllocateTemplate Datastore.Audit Pool.Audit SDN.Use \
    Sys.AccessNetwork Sys.Audit Sys.Console Sys.Modify VM.Allocate VM.Audit VM.Clone VM.Config.CDROM VM.Config.CPU \
    VM.Config.Cloudinit VM.Config.Disk VM.Config.HWType VM.Config.Memory VM.Config.Network VM.Config.Options \
    VM.PowerMgmt VM.Snapshot VM.Snapshot.Rollback";

async fn done(site: &Site, args: &[&str], doc: &Value) {
    let run = site.run(args, doc).await;
    assert_eq!(run.exit, Exit::Done, "{args:?}: {}{}", run.stdout, run.stderr);
}

/// A life with everything on, on local storage.
async fn local(generation: Generation) -> Vec<RawRequest> {
    let site = site_of(|config| config.generation = generation).await;
    site.lab.pve.keep_requests();
    let mut doc = site.whole();
    let pools = doc["spec"]["pools"].as_array_mut().unwrap();
    pools.iter_mut().for_each(|p| p["count"] = json!(p["count"].as_u64().unwrap().min(2)));
    pools[0]["kind"] = json!("lxc");
    pools[0]["startup"] = json!({ "order": 3, "upSeconds": 5, "downSeconds": 60 });
    doc["spec"]["proxmox"]["vlan"] = json!(30);
    doc["spec"]["proxmox"]["containerTemplate"] = json!({
        "url": "https://mirror.lab.example/debian-13-standard_13.1-2_amd64.tar.zst",
        "checksum": format!("sha512:{}", "cd".repeat(64)), "storage": "local" });
    doc["spec"]["proxmox"]["template"] = json!({ "name": "made-here", "image": {
        "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
        "storage": "local" } });
    for gone in ["kubernetes", "cni", "storage", "ingress", "observability", "loadBalancer"] {
        doc["spec"].as_object_mut().unwrap().remove(gone);
    }
    done(&site, &[], &doc).await;
    for pool in ["lb", "nfs"] {
        done(&site, &["snapshot", pool, "before"], &doc).await;
        done(&site, &["rollback", pool, "before", "--yes"], &doc).await;
    }
    for args in [&[][..], &["check"], &["plan"], &["snapshots"], &["rebalance"]] {
        done(&site, args, &doc).await;
    }
    // Grown, moved to another network, another way of starting; then another image from a file.
    for pool in [0, 2] {
        doc["spec"]["pools"][pool]["cores"] = json!(3);
        doc["spec"]["pools"][pool]["disk"] = json!("120Gi");
    }
    doc["spec"]["proxmox"]["vlan"] = json!(31);
    doc["spec"]["pools"][2]["protection"] = json!(true);
    done(&site, &["--restart"], &doc).await;
    for name in ["demo-prod-1", "demo-nfs-1", "demo-lb-1"] {
        done(&site, &["replace", name, "--yes"], &doc).await;
    }
    std::fs::write(site.dir.path().join("debian.img"), b"an image").unwrap();
    doc["spec"]["proxmox"]["template"]["image"] = json!({ "file": "debian.img", "storage": "local" });
    doc["spec"]["pools"][1]["count"] = json!(1);
    doc["spec"]["backup"]["machines"]["keep"] = json!(9);
    done(&site, &["--refresh-templates"], &doc).await;
    let mut args = vec!["destroy", "--yes", "--prune"];
    done(&site, &args, &doc).await;
    args[2] = "--templates";
    for name in ["demo-nfs-1", "demo-prod-1", "demo-prod-2"] {
        args.extend(["--delete-data", name]);
    }
    done(&site, &args, &doc).await;
    site.nothing_unknown();
    site.lab.pve.keep_requests()
}

/// On shared storage, in the care of the HA manager, by password.
async fn shared(generation: Generation) -> Vec<RawRequest> {
    let site = site_of(|config| {
        config.generation = generation;
        config.shared = Some("shared".into());
        // One that may do all, for a pool of its own too.
        config.rights = Some(vec![Acl::new("/", &format!("{ALL} Pool.Allocate"))]);
    })
    .await;
    site.lab.pve.keep_requests();
    let mut doc = site.small();
    doc["spec"]["proxmox"]["storage"] = json!("shared");
    doc["spec"]["proxmox"]["ha"] = json!({});
    doc["spec"]["proxmox"]["pool"] = json!("fresh");
    done(&site, &[], &doc).await;
    for pool in ["k8s-prod", "fresh"] {
        doc["spec"]["proxmox"]["pool"] = json!(pool);
        done(&site, &[], &doc).await;
    }
    doc["spec"]["proxmox"]["ha"] = json!({ "pools": ["lb"], "maxRestart": 3 });
    done(&site, &[], &doc).await;
    done(&site, &["replace", "demo-lb-1", "--yes"], &doc).await;
    // Its entry of the HA manager is made again.
    done(&site, &[], &doc).await;
    done(&site, &["check"], &doc).await;
    done(&site, &["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
    site.nothing_unknown();
    site.lab.pve.keep_requests()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_as_the_published_schema_has_it() {
    for generation in [Generation::V8, Generation::V9] {
        let Some(published) = published(generation) else { return };
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for request in local(generation).await.into_iter().chain(shared(generation).await) {
            let (line, found) = published.judge(&request);
            *kinds.entry(line.clone()).or_default() += 1;
            if !found.is_empty() {
                wrong.entry(line).or_default().extend(found);
            }
        }
        let all: usize = kinds.values().sum();
        println!("{generation:?}: {all} requests of {} kinds", kinds.len());
        kinds.iter().for_each(|(kind, count)| println!("  {count:5} {kind}"));
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(kinds.len() > 40, "{} kinds of requests are too few for a whole life", kinds.len());
    }
}

#[test]
fn the_judge_finds_what_is_wrong() {
    let Some(published) = published(Generation::V9) else { return };
    let judged = |method: &str, target: &str, body: &str| {
        let kind = if body.is_empty() { "" } else { "application/x-www-form-urlencoded" };
        let target = format!("/api2/json{target}");
        let request =
            RawRequest { method: method.into(), target, kind: kind.into(), body: body.to_owned().into() };
        published.judge(&request).1
    };
    assert_eq!(judged("GET", "/nodes/pve1/qemu/101/config", ""), Vec::<String>::new());
    let config = "/nodes/pve1/qemu/101/config";
    for (method, target, body, part) in [
        ("POST", "/nodes/pve1/qemu/101/configs", "", "no such route"),
        ("GET", config, "cores=1", "a body"),
        ("POST", config, "cores=no", "cores: no integer"),
        ("POST", config, "core=1", "core: not defined"),
        ("POST", config, "cores=1&cores=2", "cores: sent twice"),
        ("POST", config, "cores=0", "cores: too little"),
        ("POST", config, "onboot=yes", "onboot: no boolean"),
        ("POST", config, "boot=order%3Dscsi0;ide2", "a bare ;"),
        ("POST", config, "boot=order%3Dfloppy0", "boot.order: no pve-qm-bootdev"),
        ("POST", config, "startup=first", "startup: no pve-startup-order"),
        ("POST", config, "scsi1=local-lvm%3A8%2Cdiscard%3Doften", "scsi1.discard: not in the enumeration"),
        ("POST", config, "net0=virtio%2Cbridge%3Dvmbr0%2Ctag%3D5000", "net0.tag: too much"),
        ("POST", config, "scsi31=local-lvm%3A8", "scsi31: not defined"),
        ("POST", config, "force=1", "delete: missing property required by 'force'"),
        ("POST", "/nodes/pve1/qemu/9000/clone", "name=a", "newid: missing"),
        (
            "POST",
            "/cluster/ha/rules",
            "rule=ab&type=node-affinity&resources=vm%3A1&affinity=negative",
            "affinity: not for",
        ),
        ("PUT", "/nodes/pve1/qemu/99/resize", "disk=scsi0&size=4G", "vmid: too little"),
    ] {
        let found = judged(method, target, body);
        assert!(found.iter().any(|f| f.contains(part)), "{target} {body}: {found:?}, not {part}");
    }
}
