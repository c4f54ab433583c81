//! The whole cluster of the twin document, built in the lab.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod support;

use std::collections::BTreeMap;

use serde_json::json;
use stage::Exit;
use support::site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirteen_machines_twice_and_gone() {
    let site = site().await;
    let doc = site.whole();
    let plan = site.run(&["plan"], &doc).await;
    assert_eq!((plan.exit, site.changes(0).len()), (Exit::Done, 0), "{}", plan.stderr);
    assert!(plan.stdout.starts_with("pve-vm: "), "{}", plan.stdout);

    let first = site.run(&[], &doc).await;
    let machines = first.machines(Exit::Done);
    assert_eq!(machines.len(), 13);
    let text = |m: &serde_json::Value, key: &str| m[key].as_str().unwrap().to_owned();
    for machine in &machines {
        assert_eq!(machine["hostKeys"].as_array().unwrap().len(), 1, "{machine}");
        assert_eq!(machine["reachable"], true);
        assert!(text(&machine["macs"], "net0").starts_with("BC:24:11"), "{machine}");
    }
    let mut per: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for machine in &machines {
        *per.entry(text(machine, "role")).or_default().entry(text(machine, "node")).or_default() += 1;
    }
    assert_eq!(per["load-balancer"].values().copied().collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(per["control-plane"].values().copied().collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(per["worker"].values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    let nfs = site.guests().into_iter().find(|g| g.name == "demo-nfs-1").unwrap();
    assert!(
        nfs.config["scsi1"].contains("serial=data") && nfs.config["scsi1"].contains("size=500G"),
        "{nfs:?}"
    );
    assert!(nfs.config["scsi0"].contains("size=16G"), "{nfs:?}");
    assert_eq!(nfs.pool.as_deref(), Some("k8s-prod"));

    let mark = site.lab.world.journal.len();
    let second = site.run_until(&[], &first.stdout, None).await;
    assert_eq!((second.exit, &second.stdout), (Exit::Done, &first.stdout), "{}", second.stderr);
    let check = site.run_until(&["check"], &first.stdout, None).await;
    assert_eq!(check.exit, Exit::Done, "{}", check.stdout);
    assert_eq!(site.changes(mark), Vec::<String>::new());
    let plan = site.run(&["plan"], &doc).await;
    assert_eq!(plan.stdout, "pve-vm: nothing to do\n");

    for run in [&first, &second, &check] {
        let secret = std::fs::read_to_string(site.dir.path().join("pve-token")).unwrap();
        let secret = secret.trim().split_once('=').unwrap().1.to_owned();
        assert!(!run.stdout.contains(&secret) && !run.stderr.contains(&secret));
    }

    let held = site.run(&["destroy", "--yes"], &doc).await;
    assert_eq!(held.exit, Exit::Precondition, "{}", held.stderr);
    assert!(held.stderr.contains("--delete-data demo-nfs-1"), "{}", held.stderr);
    assert_eq!(site.guests().len(), 1);
    let gone = site.run(&["destroy", "--yes", "--delete-data", "demo-nfs-1"], &doc).await;
    assert_eq!(gone.exit, Exit::Done, "{}", gone.stderr);
    assert_eq!(site.guests().len(), 0);
    assert_eq!(site.lab.pve.view().len(), 3, "the templates stay");
    assert!(
        site.lab.pve.volumes("pve1").iter().all(|v| v.contains("-9000-")),
        "{:?}",
        site.lab.pve.volumes("pve1")
    );
    let again = site.run(&["destroy"], &doc).await;
    assert_eq!(again.exit, Exit::Done, "{}", again.stderr);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_off_is_done_in_part() {
    let site = site().await;
    let doc = site.small();
    let built = site.run(&[], &doc).await.doc(Exit::Done);
    let before = site.world();
    let off = built["status"]["pve-vm"]["machines"][1]["node"].as_str().unwrap().to_owned();
    site.lab.pve.node_off(&off);
    let run = site.run(&[], &built).await;
    let machines = run.machines(Exit::Partial);
    assert_eq!(machines.len(), 4);
    for (now, was) in machines.iter().zip(built["status"]["pve-vm"]["machines"].as_array().unwrap()) {
        assert_eq!(now["reachable"], json!(now["node"] != off.as_str()), "{now}");
        for key in ["name", "role", "pool", "node", "vmid", "address", "hostKeys", "macs"] {
            assert_eq!(now[key], was[key]);
        }
    }
    assert!(run.stderr.contains("is off"), "{}", run.stderr);
    let check = site.run(&["check"], &built).await;
    assert_eq!(check.exit, Exit::Differs);
    assert!(check.stdout.contains("demo-lb-2"), "{}", check.stdout);

    site.lab.pve.node_on(&off).unwrap();
    let back = site.run(&[], &built).await.doc(Exit::Done);
    assert_eq!(back, built);
    assert_eq!(site.world(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_off_from_the_start() {
    let site = site().await;
    let doc = site.whole();
    site.lab.pve.node_off("pve3");
    let run = site.run(&[], &doc).await;
    let machines = run.machines(Exit::Partial);
    let held: Vec<&str> =
        machines.iter().filter(|m| m["reachable"] == false).map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(held, ["demo-lb-3", "demo-cp-3"], "only a hard pool needs the third node");
    site.lab.pve.node_on("pve3").unwrap();
    let back = site.run(&[], &doc).await.machines(Exit::Done);
    assert!(back.iter().all(|m| m["reachable"] == true));
    assert_eq!(site.guests().len(), 13);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_guests_are_not_touched() {
    for (vmid, name) in [(3001, "somebodys-db"), (120, "demo-lb-2")] {
        let site = site().await;
        site.lab.pve.add_foreign(vmid, name, "pve2");
        let before = site.world();
        let run = site.run(&[], &site.small()).await;
        if vmid == 120 {
            // The lab's login has least rights: what it may not see cannot be found by its name.
            assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
            continue;
        }
        assert_eq!(site.guests().len(), 0, "nothing is begun");
        assert_eq!(run.exit, Exit::Precondition, "{}", run.stderr);
        assert!(run.stderr.contains("untouched"), "{}", run.stderr);
        let foreign = |w: &serde_json::Value| {
            w["guests"].as_array().unwrap().iter().find(|g| g["vmid"] == vmid).unwrap().clone()
        };
        assert_eq!(foreign(&before), foreign(&site.world()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grown_changed_and_shrunk() {
    let site = site().await;
    let mut doc = site.small();
    site.run(&[], &doc).await.doc(Exit::Done);
    doc["spec"]["pools"][0]["count"] = json!(3);
    doc["spec"]["pools"][1]["cores"] = json!(6);
    doc["spec"]["pools"][1]["disk"] = json!("150Gi");
    let held = site.run(&[], &doc).await;
    let section = held.doc(Exit::Done)["status"]["pve-vm"].clone();
    assert_eq!(section["machines"].as_array().unwrap().len(), 5);
    assert_eq!(section["held"][0]["hint"], "pve-vm --restart", "{section}");
    let restarted = site.run(&["--restart"], &doc).await;
    assert_eq!(restarted.doc(Exit::Done)["status"]["pve-vm"]["held"], json!(null));
    let worker = site.guests().into_iter().find(|g| g.name == "demo-prod-1").unwrap();
    assert_eq!((worker.config["cores"].as_str(), worker.running), ("6", true));
    assert!(worker.config["scsi0"].contains("size=150G"), "{worker:?}");

    doc["spec"]["pools"][0]["count"] = json!(2);
    let shrunk = site.run(&[], &doc).await.machines(Exit::Done);
    assert_eq!((shrunk[4]["name"].as_str(), &shrunk[4]["leaving"]), (Some("demo-lb-3"), &json!(true)));
    let pruned = site.run(&["destroy", "--prune", "--yes"], &doc).await;
    assert_eq!(pruned.exit, Exit::Done, "{}", pruned.stderr);
    assert_eq!(site.guests().len(), 4);
    assert!(site.guests().iter().all(|g| g.name != "demo-lb-3"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_password_and_fingerprint() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = site().await;
    let mut doc = site.small();
    let file = site.dir.path().join("password");
    std::fs::write(&file, "kubeline-in-the-lab\n").unwrap();
    let proxmox = doc["spec"]["proxmox"].as_object_mut().unwrap();
    proxmox.remove("tokenFile");
    proxmox.remove("caFile");
    proxmox.remove("endpoints");
    proxmox.insert("ticket".into(), json!({ "user": "kubeline@pve", "passwordFile": file }));
    proxmox.insert("fingerprint".into(), json!(site.lab.pve.fingerprint("pve1").unwrap()));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = site.run(&["plan"], &doc).await;
    assert_eq!(open.exit, Exit::Precondition, "{}", open.stderr);
    assert!(open.stderr.contains("chmod 600"), "{}", open.stderr);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(site.run(&[], &doc).await.machines(Exit::Done).len(), 4);
    doc["spec"]["proxmox"]["fingerprint"] = json!(["00"; 32].join(":"));
    let wrong = site.run(&["plan"], &doc).await;
    assert_eq!(wrong.exit, Exit::Precondition, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("certificate"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_made_of_an_image() {
    let site = site().await;
    let mut doc = site.small();
    doc["spec"]["proxmox"]["template"] = json!({ "name": "made-here", "image": {
        "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
        "storage": "local" } });
    let plan = site.run(&["plan"], &doc).await;
    assert!(plan.stdout.contains("make the template made-here (3099 on pve1)"), "{}", plan.stdout);
    assert_eq!(site.run(&[], &doc).await.machines(Exit::Done).len(), 4);
    let templates = |site: &support::Site| -> Vec<u32> {
        site.lab
            .pve
            .view()
            .into_iter()
            .filter(|g| g.template && g.name == "made-here")
            .map(|g| g.vmid)
            .collect()
    };
    assert_eq!(templates(&site), [3097, 3098, 3099]);
    assert_eq!(site.run(&["plan"], &doc).await.stdout, "pve-vm: nothing to do\n");
    // Broken off at any point, the making goes on.
    for k in [1, 2, 3, 5] {
        let other = support::site().await;
        let mut doc = doc.clone();
        for section in ["network", "ssh", "pools"] {
            doc["spec"][section] = other.small()["spec"][section].clone();
        }
        for key in ["endpoint", "endpoints", "tokenFile", "caFile"] {
            doc["spec"]["proxmox"][key] = other.small()["spec"]["proxmox"][key].clone();
        }
        assert!(other.run_until(&[], &doc.to_string(), Some(k)).await.crashed);
        assert_eq!(other.run(&[], &doc).await.machines(Exit::Done).len(), 4);
        assert_eq!(templates(&other), [3097, 3098, 3099], "k = {k}");
    }
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxmox_8_with_latencies() {
    let site = support::site_of(|config| {
        config.generation = lab::pve::Generation::V8;
        config.clock = lab::Clock::scaled(0.02);
    })
    .await;
    let doc = site.whole();
    let start = std::time::Instant::now();
    let first = site.run(&[], &doc).await;
    assert_eq!(first.machines(Exit::Done).len(), 13);
    println!("13 machines in {:.1} s at a fiftieth of their latencies", start.elapsed().as_secs_f64());
    let second = site.run_until(&[], &first.stdout, None).await;
    assert_eq!((second.exit, &second.stdout), (Exit::Done, &first.stdout), "{}", second.stderr);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_made_of_a_file_and_anew_of_another() {
    let site = site().await;
    let mut doc = site.small();
    let image = |bytes: &[u8]| std::fs::write(site.dir.path().join("debian.img"), bytes).unwrap();
    image(b"QFI\xfb first");
    doc["spec"]["proxmox"]["template"] =
        json!({ "name": "made-here", "image": { "file": "debian.img", "storage": "local" } });
    assert_eq!(site.run(&[], &doc).await.machines(Exit::Done).len(), 4);
    let templates = |site: &support::Site| -> Vec<u32> {
        let all = site.lab.pve.view().into_iter();
        all.filter(|g| g.template && g.name == "made-here").map(|g| g.vmid).collect()
    };
    assert_eq!(templates(&site), [3097, 3098, 3099]);
    image(b"QFI\xfb second");
    // A template of that name is used as it is, until it is said otherwise.
    assert_eq!(site.run(&["plan"], &doc).await.stdout, "pve-vm: nothing to do\n");
    doc["spec"]["pools"][0]["count"] = json!(3);
    let grown = site.run(&["--refresh-templates"], &doc).await;
    assert_eq!(grown.machines(Exit::Done).len(), 5);
    assert_eq!(templates(&site).len(), 4, "one anew, on the node that needs it; the old ones stay");
    assert_eq!(site.run(&["plan", "--refresh-templates"], &doc).await.stdout, "pve-vm: nothing to do\n");
    doc["spec"]["proxmox"]["template"]["image"]["checksum"] = json!(format!("sha512:{}", "ab".repeat(64)));
    doc["spec"]["pools"][1]["count"] = json!(2);
    let wrong = site.run(&["plan", "--refresh-templates"], &doc).await;
    assert_eq!(wrong.exit, Exit::Precondition, "{}", wrong.stderr);
    assert!(wrong.stderr.contains("cannot use the image debian.img"), "{}", wrong.stderr);
    doc["spec"]["proxmox"]["template"]["image"].as_object_mut().unwrap().remove("checksum");
    let gone = site.run(&["destroy", "--yes", "--templates", "--delete-data", "demo-nfs-1"], &doc).await;
    assert_eq!((gone.exit, templates(&site).len()), (Exit::Done, 0), "{}", gone.stderr);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_backup_job_is_ours_by_its_comment() {
    let site = site().await;
    let mut doc = site.small();
    doc["spec"]["backup"] =
        json!({ "machines": { "schedule": "Sat *-*-* 01:00:00", "keep": 4, "storage": "backup" } });
    site.run(&[], &doc).await.doc(Exit::Done);
    let jobs = || site.lab.pve.jobs();
    assert_eq!(jobs()["kubeline-demo"]["pool"], "k8s-prod");
    doc["spec"]["backup"]["machines"]["keep"] = json!(7);
    let plan = site.run(&["plan"], &doc).await;
    assert!(
        plan.stdout.contains("change the backup job kubeline-demo  # prune-backups differ"),
        "{}",
        plan.stdout
    );
    site.run(&[], &doc).await.doc(Exit::Done);
    assert_eq!(jobs()["kubeline-demo"]["prune-backups"]["keep-last"], "7");
    doc["spec"].as_object_mut().unwrap().remove("backup");
    site.run(&[], &doc).await.doc(Exit::Done);
    assert!(jobs().is_empty());
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_seed_is_told_or_left() {
    let site = site().await;
    let run = site.run(&["-vv"], &site.small()).await;
    assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
    for host in site.lab.hosts.all() {
        let machine = host.machine();
        let private = machine.fs.text("/etc/ssh/ssh_host_ed25519_key");
        let secret = private.lines().nth(3).unwrap();
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(secret));
        }
        let said = site.lab.world.journal.since(0);
        assert!(
            said.iter().all(|e| !e.request.contains(secret) && !e.argv.iter().any(|a| a.contains(secret)))
        );
        assert!(machine.fs.exists("/etc/cloud/cloud-init.disabled"), "no later boot looks for a seed");
    }
    for node in site.lab.pve.nodes() {
        assert!(
            site.lab.pve.volumes(&node).iter().all(|v| !v.contains("kubeline-seed")),
            "the seeds are gone"
        );
    }
    let gone = site.guests().into_iter().find(|g| g.config.values().any(|v| v.contains("kubeline-seed")));
    assert_eq!(gone, None, "from the drives too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_with_an_agent_is_no_worse() {
    let site = support::site_of(|config| config.agent = true).await;
    assert_eq!(site.run(&[], &site.small()).await.machines(Exit::Done).len(), 4);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroy_takes_only_what_is_proven_to_be_ours_to_take() {
    let site = site().await;
    let mut doc = site.small();
    doc["spec"]["kubernetes"] = site.whole()["spec"]["kubernetes"].clone();
    site.run(&[], &doc).await.doc(Exit::Done);
    doc["spec"]["pools"].as_array_mut().unwrap().remove(1);
    let prune = ["destroy", "--prune", "--yes"];
    // A worker may still run pods, as far as anybody has said.
    let held = site.run(&prune, &doc).await;
    assert_eq!((held.exit, site.guests().len()), (Exit::Precondition, 4), "{}", held.stderr);
    assert!(held.stderr.contains("demo-prod-1: nothing says that it has left"), "{}", held.stderr);
    doc["status"] = json!({ "kadm-bootstrap": { "controlPlanes": [], "workers": ["demo-prod-1"] } });
    let held = site.run(&prune, &doc).await;
    assert!(held.stderr.contains("still a node of the Kubernetes cluster"), "{}", held.stderr);
    doc["status"]["kadm-bootstrap"]["workers"] = json!([]);
    assert_eq!(site.run(&prune, &doc).await.exit, Exit::Done);
    assert_eq!(site.guests().len(), 3);
    // A disk that somebody took out of its drive is a disk with data still.
    let nfs = site.guests().into_iter().find(|g| g.name == "demo-nfs-1").unwrap();
    let volume = nfs.config["scsi1"].split(',').next().unwrap().to_owned();
    site.lab.pve.taken_out(nfs.vmid, "scsi1");
    let leftover = site.lab.pve.leave_volume("pve1", "local-lvm", 3000);
    let held = site.run(&["destroy", "--yes"], &doc).await;
    assert_eq!(held.exit, Exit::Precondition, "{}", held.stderr);
    assert!(held.stderr.contains("data disks (unused0)"), "{}", held.stderr);
    assert!(site.lab.pve.volumes(&nfs.node).contains(&volume));
    // What bears an id of ours and is in no machine of ours was made by somebody else.
    assert!(site.lab.pve.volumes("pve1").contains(&leftover));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_task_tells_how_far_it_is() {
    let site = support::site_of(|config| config.clock = lab::Clock::scaled(0.08)).await;
    let mut doc = site.small();
    doc["spec"]["pools"].as_array_mut().unwrap().truncate(1);
    doc["spec"]["pools"][0]["count"] = json!(1);
    doc["spec"]["proxmox"]["clone"] = json!("full");
    doc["spec"]["proxmox"]["template"] = json!({ "name": "made-here", "image": {
        "url": "https://cloud.example/images/debian.qcow2", "checksum": format!("sha512:{}", "ab".repeat(64)),
        "storage": "local" } });
    let run = site.run(&["-v"], &doc).await;
    assert_eq!(run.exit, Exit::Done, "{}", run.stderr);
    for (task, unit) in [("task download of", " MiB ("), ("task qmclone of", " GiB of 3.0 GiB (")] {
        let told: Vec<&str> = run.stderr.lines().filter(|l| l.contains(task) && l.ends_with("%)")).collect();
        assert!(told.iter().any(|l| l.contains(unit) && l.contains(" on node pve")), "{}", run.stderr);
    }
}
