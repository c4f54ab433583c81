//! nfs-provision against the lab: the seven laws, and what an operator sees.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use lab::{Action, Fault, Window};
use laws::addons::add;
use laws::cluster::Cluster;
use laws::ssh::Site;
use laws::{Case, Trouble, run};
use nfs_provision::NfsProvision;
use serde_json::{Value, json};
use stage::Exit;

/// A cluster of three nodes and an NFS machine; workers and server answer SSH.
async fn start() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = laws::addons::start_with_ssh().await;
    add(&mut spec, site.machine("nfs-1", "nfs", 60).await.unwrap());
    cluster.network().await.unwrap();
    spec["storage"] = json!({"exports": [
        {"path": "/srv/nfs/prod", "storageClass": "nfs-prod", "onDelete": "archive"},
        {"path": "/srv/nfs/nonprod", "storageClass": "nfs-nonprod", "onDelete": "delete", "default": true},
    ]});
    spec["backup"] = json!({"etcd": {"schedule": "*-*-* 00/6:00:00", "keep": 4, "export": "/srv/nfs/etcd", "recipient": "age1x"}});
    (site, cluster, spec)
}

async fn case() -> Case {
    let (site, cluster, spec) = start().await;
    cluster.case(site, spec)
}

fn ssh(matching: &str, action: Action) -> Fault {
    Fault { window: Window::Ssh, matching: matching.into(), skip: 0, times: 1, action }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_seven_laws() {
    let trouble = |name, fault, exits: &[Exit]| Trouble { name, fault, exits: exits.to_vec() };
    let troubles = vec![
        trouble(
            "exportfs refuses",
            ssh("nfs-1 exportfs -ra", Action::Exit(1, "exportfs: no".into())),
            &[Exit::Precondition],
        ),
        trouble("a write is cut off", ssh("nfs-1 write v1", Action::DropBefore), &[Exit::Transient]),
        trouble(
            "cut after an install",
            ssh("w-2 env DEBIAN_FRONTEND", Action::DropAfter),
            &[Exit::Transient],
        ),
    ];
    laws::addons::keeps_the_laws::<NfsProvision>(troubles, case).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_worker_is_held_and_destroy_ends_the_exports() {
    use lab::world::Machines as _;
    let (site, cluster, spec) = start().await;
    let hosts = site.hosts.clone();
    hosts.power_off(hosts.find("w-2").unwrap().vmid);
    let case = cluster.case(site, spec);
    let said = run::<NfsProvision>(&case, &["apply"], &["--timeout", "60s"], &case.document, None).await;
    assert_eq!(said.exit, Exit::Partial, "{said}");
    let section: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(section["status"]["nfs-provision"]["held"][0]["what"], "w-2", "{said}");
    let file = hosts.find("nfs-1").unwrap().machine().fs.text("/etc/exports.d/kubeline.exports");
    assert!(file.contains("/srv/nfs/etcd ") && file.contains("no_root_squash"), "{file}");

    let gone = run::<NfsProvision>(&case, &["destroy", "--yes"], &[], &case.document, None).await;
    assert!(
        hosts.find("nfs-1").unwrap().machine().fs.text("/etc/exports.d/kubeline.exports").is_empty(),
        "{gone}"
    );
    assert!(hosts.find("nfs-1").unwrap().machine().fs.is_dir("/srv/nfs/prod"), "the folders stay");
}

/// The NFS machine of a pool with a data disk.
async fn with_disk() -> (Site, Cluster, Value) {
    let (site, cluster, mut spec) = start().await;
    let entry = site.machine_with("law-nfs-1", "nfs", 61, vec![20 << 30, 100 << 30]).await.unwrap();
    spec["machines"].as_array_mut().unwrap().retain(|m| m["role"] != "nfs");
    spec["pools"] = json!([{"name": "nfs", "role": "nfs", "count": 1, "cores": 2, "memory": "4Gi", "disk": "16Gi",
        "addresses": entry["address"], "disks": [{"name": "data", "size": "100Gi", "mount": "/srv/nfs"}]}]);
    spec["x-host-key"] = entry["hostKey"].clone();
    (site, cluster, spec)
}

/// The document with what pve-vm would say of that machine.
fn known(case: &mut Case) {
    let mut document: Value = serde_json::from_str(&case.document).unwrap();
    let pool = document["spec"]["pools"][0].clone();
    document["status"]["pve-vm"]["machines"] = json!([{"name": "law-nfs-1", "role": "nfs", "pool": "nfs",
        "address": pool["addresses"], "hostKeys": [document["spec"]["x-host-key"]]}]);
    case.document = format!("{document:#}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blank_disk_is_formatted_once_and_what_holds_data_never() {
    let (site, cluster, spec) = with_disk().await;
    let hosts = site.hosts.clone();
    let mut case = cluster.case(site, spec);
    known(&mut case);
    let said = run::<NfsProvision>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert!(
        said.done.iter().any(|step| step == "make the file system data on /dev/sdb of law-nfs-1"),
        "{said}"
    );
    let nfs = hosts.find("law-nfs-1").unwrap();
    assert!(nfs.machine().fs.text("/etc/fstab").contains("LABEL=data /srv/nfs ext4 defaults,noatime,nofail"));
    assert!(nfs.machine().fs.text("/etc/exports.d/kubeline.exports").contains(",mp=/srv/nfs)"));
    let uuid = nfs.machine().formats["/dev/sdb"].uuid.clone();
    let again = run::<NfsProvision>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!((again.exit, again.done.len()), (Exit::Done, 0), "{again}");

    // Another run after fstab and mount were lost: the disk is mounted again, and not made anew.
    nfs.machine().mounts.clear();
    nfs.machine().fs.put("/etc/fstab", "# empty\n", 0o644, "root", "root");
    let said = run::<NfsProvision>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    assert_eq!(nfs.machine().formats["/dev/sdb"].uuid, uuid);

    // A file system of somebody else's kind is never touched.
    nfs.machine().mounts.clear();
    nfs.machine().fs.put("/etc/fstab", "# empty\n", 0o644, "root", "root");
    nfs.machine().formats.get_mut("/dev/sdb").unwrap().fstype = "LVM2_member".into();
    let said = run::<NfsProvision>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Precondition, "{said}");
    assert!(said.stderr.contains("never formatted"), "{said}");
}

/// Parameters of a class cannot be changed: the class is made anew, which no volume notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_with_other_parameters_is_made_anew() {
    use lab::world::Kubernetes as _;
    let (site, cluster, spec) = start().await;
    let kube = cluster.kube.clone();
    let case = cluster.case(site, spec);
    let said = run::<NfsProvision>(&case, &["apply"], &[], &case.document, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let class = || kube.get("law", "storage.k8s.io/v1", "StorageClass", None, "nfs-prod").unwrap();
    let before = class();
    let other = case.document.replace("\"archive\"", "\"retain\"");
    let said = run::<NfsProvision>(&case, &["plan"], &[], &other, None).await;
    assert!(
        said.stdout.contains("1. recreate StorageClass nfs-prod") && said.stdout.contains("immutable"),
        "{said}"
    );
    let said = run::<NfsProvision>(&case, &["apply"], &[], &other, None).await;
    assert_eq!(said.exit, Exit::Done, "{said}");
    let changes = said.done.iter().filter(|step| !step.starts_with("wait for "));
    assert_eq!(changes.collect::<Vec<_>>(), ["recreate StorageClass nfs-prod"], "{said}");
    let after = class();
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(
        (&after["parameters"]["onDelete"], &after["reclaimPolicy"]),
        (&json!("retain"), &json!("Retain"))
    );
}
