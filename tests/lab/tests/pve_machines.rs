//! Machines at the simulated Proxmox, from image to destroy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod pve_support;

use std::time::Duration;

use lab::pve::{Generation, ImageConfig, ProxmoxConfig};
use lab::{Action, Clock, Fault, Window};
use pve_support::{Site, quick, site};

const Q: &str = "/nodes/pve1/qemu";

async fn with_template() -> Site {
    let site = quick();
    site.proxmox.add_template(9000, "debian-13-cloud", "pve1", "local-lvm");
    site
}

#[tokio::test]
async fn from_image_to_template_to_machine_to_nothing() {
    let site = quick();
    let image = [
        ("url", "https://images.example/debian-13.qcow2"),
        ("filename", "debian-13.qcow2"),
        ("content", "import"),
        ("checksum", "ab12"),
        ("checksum-algorithm", "sha512"),
    ];
    assert_eq!(site.task("POST", "/nodes/pve1/storage/local/download-url", &image).await, "OK");
    assert_eq!(
        site.task("POST", "/nodes/pve1/storage/local/download-url", &image).await,
        "OK",
        "again is no work"
    );
    let other = [image[0], image[1], image[2], ("checksum", "ff"), image[4]];
    let mismatch = site.task("POST", "/nodes/pve1/storage/local/download-url", &other).await;
    assert_eq!(mismatch, "checksum mismatch: got 'ab12' != expect 'ff', aborting");
    let content = site.get("/nodes/pve1/storage/local/content?content=import").await;
    assert_eq!(content[0]["volid"], "local:import/debian-13.qcow2");

    let create = [
        ("vmid", "9000"),
        ("name", "tpl"),
        ("pool", "k8s-prod"),
        ("scsi0", "local-lvm:0,import-from=local:import/debian-13.qcow2,ssd=1,discard=on,iothread=1"),
        ("ide2", "local-lvm:cloudinit"),
        ("boot", "order=scsi0"),
        ("scsihw", "virtio-scsi-single"),
        ("serial0", "socket"),
        ("vga", "serial0"),
        ("agent", "enabled=1"),
        ("net0", "virtio,bridge=vmbr0"),
    ];
    assert_eq!(site.task("POST", Q, &create).await, "OK");
    let config = site.get(&format!("{Q}/9000/config")).await;
    assert_eq!(config["scsi0"], "local-lvm:vm-9000-disk-0,discard=on,iothread=1,size=3G,ssd=1");
    assert_eq!(config["ide2"], "local-lvm:vm-9000-cloudinit,media=cdrom");
    assert!(config["net0"].as_str().unwrap().starts_with("virtio=BC:24:11:"));
    assert_eq!(site.task("POST", &format!("{Q}/9000/template"), &[]).await, "OK");
    let config = site.get(&format!("{Q}/9000/config")).await;
    assert_eq!(config["template"], 1);
    assert!(config["scsi0"].as_str().unwrap().starts_with("local-lvm:base-9000-disk-0,"));

    let clone = [("newid", "3001"), ("name", "prod-cp-1"), ("pool", "k8s-prod"), ("description", "mark")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    let set = [
        ("cores", "4"),
        ("memory", "8192"),
        ("ciuser", "kubeline"),
        ("sshkeys", "ssh-ed25519%20AAAAC3Nz%20operator"),
        ("ipconfig0", "ip=10.30.0.21/24,gw=10.30.0.1"),
        ("tags", "k8s;Prod;cp"),
        ("scsi1", "local-lvm:500"),
        ("onboot", "1"),
    ];
    assert_eq!(site.task("POST", &format!("{Q}/3001/config"), &set).await, "OK");
    assert_eq!(
        site.task("PUT", &format!("{Q}/3001/resize"), &[("disk", "scsi0"), ("size", "40G")]).await,
        "OK"
    );
    assert_eq!(
        site.task("PUT", &format!("{Q}/3001/resize"), &[("disk", "scsi0"), ("size", "40G")]).await,
        "OK"
    );
    let shrink = site.task("PUT", &format!("{Q}/3001/resize"), &[("disk", "scsi0"), ("size", "4G")]).await;
    assert_eq!(shrink, "shrinking disks is not supported");
    let config = site.get(&format!("{Q}/3001/config")).await;
    assert_eq!(config["tags"], "cp;k8s;prod");
    assert_eq!(config["description"], "mark\n");
    assert_eq!((config["cores"].clone(), config["memory"].clone()), (4.into(), "8192".into()));
    assert!(config["scsi0"].as_str().unwrap().contains("size=40G"));

    assert_eq!(site.task("POST", &format!("{Q}/3001/status/start"), &[]).await, "OK");
    assert_eq!(site.task("POST", &format!("{Q}/3001/status/start"), &[]).await, "VM 3001 already running");
    let boot = site.machines.on.lock().unwrap()[&3001].clone();
    assert_eq!(boot.address, "10.30.0.21".parse().ok());
    assert_eq!(
        (boot.name.as_str(), boot.user.as_str(), boot.pve_node.as_str()),
        ("prod-cp-1", "kubeline", "pve1")
    );
    assert_eq!(boot.authorized_keys, ["ssh-ed25519 AAAAC3Nz operator"]);
    assert_eq!((boot.cores, boot.memory_mib, boot.disks), (4, 8192, vec![40 << 30, 500 << 30]));
    let interfaces = site.get(&format!("{Q}/3001/agent/network-get-interfaces")).await;
    assert_eq!(interfaces["result"][1]["ip-addresses"][0]["ip-address"], "10.30.0.21");
    let file = "/agent/file-read?file=/etc/ssh/ssh_host_ed25519_key.pub";
    assert_eq!(site.get(&format!("{Q}/3001{file}")).await["content"], "ssh-ed25519 AAAA host\n");

    let running = site.call("DELETE", &format!("{Q}/3001"), &[("purge", "1")]).await;
    assert_eq!((running.status, running.reason.as_str()), (500, "VM 3001 is running - destroy failed"));
    assert_eq!(site.task("POST", &format!("{Q}/3001/status/shutdown"), &[("timeout", "60")]).await, "OK");
    assert!(site.machines.on.lock().unwrap().is_empty());
    assert_eq!(site.task("DELETE", &format!("{Q}/3001"), &[("purge", "1")]).await, "OK");
    assert_eq!(*site.machines.erased.lock().unwrap(), [3001]);
    assert!(site.proxmox.volumes("pve1").iter().all(|v| !v.contains("3001")));
    let gone = site.call("GET", &format!("{Q}/3001/config"), &[]).await;
    assert_eq!(gone.status, 403, "outside the pool the token may not even look");
    assert!(site.world.journal.unknown().is_empty());
}

#[tokio::test]
async fn a_clone_inherits_and_gets_new_addresses() {
    let site = with_template().await;
    let before = site.get(&format!("{Q}/9000/config")).await;
    let clone = [("newid", "3001"), ("name", "a"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    let after = site.get(&format!("{Q}/3001/config")).await;
    assert_ne!(before["net0"], after["net0"]);
    assert_eq!(before["agent"], after["agent"]);
    assert_eq!(after["template"], serde_json::Value::Null);
    let again = site.call("POST", &format!("{Q}/9000/clone"), &clone).await;
    assert_eq!(again.reason, "unable to create VM 3001: config file already exists");
    let linked = site
        .call(
            "POST",
            &format!("{Q}/9000/clone"),
            &[("newid", "3002"), ("pool", "k8s-prod"), ("storage", "local-lvm")],
        )
        .await;
    assert_eq!(linked.reason, "parameter 'storage' not allowed for linked clones");
    let away = [("newid", "3002"), ("pool", "k8s-prod"), ("target", "pve2")];
    let away = site.call("POST", &format!("{Q}/9000/clone"), &away).await;
    assert_eq!(away.reason, "can't clone VM to node 'pve2' (VM uses local storage)");
}

#[tokio::test]
async fn one_id_on_two_nodes_ends_in_the_task() {
    let site = with_template().await;
    site.proxmox.add_foreign(3001, "theirs", "pve2");
    let clone = [("newid", "3001"), ("pool", "k8s-prod")];
    let exit = site.task("POST", &format!("{Q}/9000/clone"), &clone).await;
    assert_eq!(
        exit,
        "close (rename) atomic file '/etc/pve/nodes/pve1/qemu-server/3001.conf' failed: File exists"
    );
    assert_eq!(site.proxmox.view()[0].name, "theirs");
    let create = site.call("POST", Q, &[("vmid", "3001"), ("pool", "k8s-prod")]).await;
    assert_eq!(create.reason, "unable to create VM 3001 - VM 3001 already exists on node 'pve2'");
}

#[tokio::test]
async fn locks_time_out_as_the_real_ones_do() {
    let site = site(ProxmoxConfig::default(), Clock::scaled(0.05));
    site.proxmox.add_template(9000, "t", "pve1", "local-lvm");
    // Each linked clone holds the storage for 2 s of a wait of 10 s: of ten at once some must fail.
    let mut upids = Vec::new();
    for id in 3001..3011 {
        let id = id.to_string();
        let params = [("newid", id.as_str()), ("pool", "k8s-prod")];
        let upid = site.call("POST", &format!("{Q}/9000/clone"), &params).await.data();
        upids.push(upid.as_str().unwrap().to_owned());
    }
    let mut exits = Vec::new();
    for upid in upids {
        exits.push(site.exit(&upid).await);
    }
    let text = "clone failed: can't lock file '/var/lock/pve-manager/pve-storage-local-lvm' - got timeout";
    assert!(exits.iter().any(|e| e == text), "{exits:?}");
    let good = exits.iter().filter(|e| *e == "OK").count();
    assert!(good >= 2, "{exits:?}");
    assert_eq!(site.proxmox.view().len(), good + 1, "a failed clone leaves nothing");
}

#[tokio::test]
async fn a_running_machine_keeps_what_cannot_change_pending() {
    let site = with_template().await;
    let clone = [("newid", "3001"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    assert_eq!(site.task("POST", &format!("{Q}/3001/status/start"), &[]).await, "OK");
    let path = format!("{Q}/3001/config");
    site.call("PUT", &path, &[("memory", "4096"), ("tags", "b;a")]).await.data();
    let current = site.get(&format!("{path}?current=1")).await;
    assert_eq!((current["memory"].clone(), current["tags"].clone()), ("1024".into(), "a;b".into()));
    assert_eq!(site.get(&path).await["memory"], "4096");
    let pending = site.get(&format!("{Q}/3001/pending")).await;
    let memory = pending.as_array().unwrap().iter().find(|p| p["key"] == "memory").unwrap();
    assert_eq!((memory["value"].clone(), memory["pending"].clone()), ("1024".into(), "4096".into()));
    assert_eq!(site.task("POST", &format!("{Q}/3001/status/reboot"), &[]).await, "OK");
    assert_eq!(site.machines.boots.lock().unwrap().last().unwrap().memory_mib, 4096);

    let digest = [("digest", "0000000000000000000000000000000000000000"), ("name", "x")];
    let stale = site.call("PUT", &path, &digest).await;
    assert_eq!(stale.reason, "checksum mismatch (file change by other user?)");
    assert_eq!(site.call("PUT", &path, &[]).await.reason, "no options specified");
    let boot = site.call("PUT", &path, &[("boot", "order=scsi5")]).await;
    assert_eq!(boot.body["errors"]["boot"], "invalid bootorder: device 'scsi5' does not exist'");
}

#[tokio::test]
async fn the_least_rights_are_just_enough() {
    let site = with_template().await;
    let clone = [("newid", "3001"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    for (method, path, params, text) in [
        (
            "POST",
            "/nodes/pve1/qemu/9000/clone".to_owned(),
            vec![("newid", "3002")],
            "Permission check failed (/vms/3002, VM.Allocate)",
        ),
        ("POST", "/pools".into(), vec![("poolid", "x")], "Permission check failed (/pool/x, Pool.Allocate)"),
        (
            "PUT",
            format!("{Q}/3001/config"),
            vec![("startup", "order=1")],
            "Permission check failed (/, Sys.Modify)",
        ),
        (
            "POST",
            "/cluster/ha/resources".into(),
            vec![("sid", "vm:3001")],
            "Permission check failed (/, Sys.Console)",
        ),
        ("POST", "/cluster/backup".into(), vec![("all", "1")], "Permission check failed (/, Sys.Modify)"),
        (
            "GET",
            "/storage/local".into(),
            vec![],
            "Permission check failed (/storage/local, Datastore.Allocate)",
        ),
        (
            "POST",
            format!("{Q}/3001/agent/exec"),
            vec![("command", "id")],
            "Permission check failed (/vms/3001, VM.GuestAgent.Unrestricted)",
        ),
        ("DELETE", format!("{Q}/9000"), vec![], "Permission check failed (/vms/9000, VM.Allocate)"),
    ] {
        let got = site.call(method, &path, &params).await;
        assert_eq!((got.status, got.reason.as_str()), (403, text), "{method} {path}");
        assert_eq!(got.body["message"], format!("{text}\n"));
    }
    // Refused for rights before it is refused for its parameters.
    assert_eq!(site.call("POST", "/pools", &[]).await.status, 403);
    let skip = site.call("PUT", &format!("{Q}/3001/config"), &[("skiplock", "1"), ("name", "x")]).await;
    assert_eq!(skip.body["errors"]["skiplock"], "Only root may use this option.");
    let rights = site.get("/access/permissions").await;
    assert_eq!(rights["/pool/k8s-prod"]["VM.Allocate"], 1);
    assert_eq!(rights["/"]["Sys.Audit"], 0);
    assert_eq!(site.get("/access/permissions?path=/vms/3001").await["/vms/3001"]["VM.PowerMgmt"], 1);
}

#[tokio::test]
async fn a_node_goes_and_comes_back() {
    let site = with_template().await;
    site.proxmox.add_template(9002, "t", "pve2", "local-lvm");
    let clone = [("newid", "3002"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", "/nodes/pve2/qemu/9002/clone", &clone).await, "OK");
    site.call("PUT", "/nodes/pve2/qemu/3002/config", &[("onboot", "1"), ("ipconfig0", "ip=10.0.0.2/24")])
        .await
        .data();
    assert_eq!(site.task("POST", "/nodes/pve2/qemu/3002/status/start", &[]).await, "OK");

    site.proxmox.node_off("pve2");
    assert!(site.request("GET", "pve2", "/version").send().await.is_err(), "its address answers no more");
    let far = site.call("GET", "/nodes/pve2/qemu/3002/config", &[]).await;
    assert_eq!((far.status, far.text.as_str()), (595, ""));
    assert!(site.machines.on.lock().unwrap().is_empty());
    let nodes = site.get("/nodes").await;
    assert_eq!(nodes[1]["status"], "offline");
    assert_eq!(site.get("/cluster/status").await[0]["quorate"], 1);

    site.proxmox.node_off("pve3");
    assert_eq!(site.get("/cluster/status").await[0]["quorate"], 0);
    let write =
        site.call("POST", &format!("{Q}/9000/clone"), &[("newid", "3003"), ("pool", "k8s-prod")]).await;
    assert_eq!((write.status, write.reason.as_str()), (500, "cluster not ready - no quorum?"));

    site.proxmox.node_on("pve2").unwrap();
    for _ in 0..400 {
        if site.machines.on.lock().unwrap().contains_key(&3002) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a machine with onboot did not start with its node");
}

#[tokio::test]
async fn faults_strike_once_each() {
    let site = with_template().await;
    let inject = |matching: &str, action| {
        let fault = Fault { window: Window::Pve, matching: matching.into(), skip: 0, times: 1, action };
        site.world.faults.inject(fault);
    };
    let clone = [("newid", "3001"), ("pool", "k8s-prod")];
    let path = format!("{Q}/9000/clone");
    inject("pve1 POST /nodes/pve1/qemu/9000/clone", Action::TaskEnd("got timeout".into()));
    assert_eq!(site.task("POST", &path, &clone).await, "got timeout");
    assert_eq!(site.proxmox.view().len(), 1);

    inject("/clone", Action::Status(596, "Connection timed out".into()));
    let got = site.call("POST", &path, &clone).await;
    assert_eq!((got.status, got.text.as_str(), got.closes), (596, "", true));
    assert_eq!(site.proxmox.view().len(), 1);

    inject("/clone", Action::DropAfter);
    assert!(site.request("POST", "pve1", &path).form(&clone).send().await.is_err());
    for _ in 0..400 {
        if site.proxmox.view().iter().any(|g| g.vmid == 3001 && g.pool.is_some()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(site.proxmox.view().iter().any(|g| g.vmid == 3001), "the clone was made all the same");
    let changing = site.world.journal.changing_since(0);
    assert_eq!(changing.len(), 3);
    assert_eq!(changing[0].request, "POST /nodes/pve1/qemu/9000/clone");
}

#[tokio::test]
async fn a_wrong_image_ends_the_task() {
    let mut config = ProxmoxConfig::default();
    let image =
        ImageConfig { digests: [("sha512".to_owned(), "aa".to_owned())].into(), ..ImageConfig::default() };
    config.images.insert("https://x/d.qcow2".into(), image);
    config
        .images
        .insert("https://x/gone.qcow2".into(), ImageConfig { missing: true, ..ImageConfig::default() });
    let site = site(config, Clock::ZERO);
    let path = "/nodes/pve1/storage/local/download-url";
    let params = |url, sum| {
        [
            ("url", url),
            ("filename", "d.qcow2"),
            ("content", "import"),
            ("checksum", sum),
            ("checksum-algorithm", "sha512"),
        ]
    };
    let wrong = site.task("POST", path, &params("https://x/d.qcow2", "bb")).await;
    assert_eq!(wrong, "checksum mismatch: got 'aa' != expect 'bb', aborting");
    let gone = site.task("POST", path, &params("https://x/gone.qcow2", "bb")).await;
    assert!(gone.starts_with("download failed: ") && gone.ends_with("ERROR 404: Not Found."), "{gone}");
    assert_eq!(site.task("POST", path, &params("https://x/d.qcow2", "aa")).await, "OK");
    let name = [("url", "https://x/d.img"), ("filename", "d.img"), ("content", "import")];
    let name = site.call("POST", path, &name).await;
    assert_eq!(name.body["errors"]["filename"], "invalid filename or wrong extension");
    let place = [("url", "https://x/d.qcow2"), ("filename", "d.qcow2"), ("content", "import")];
    assert_eq!(site.call("POST", "/nodes/pve1/storage/local-lvm/download-url", &place).await.status, 403);
}

#[tokio::test]
async fn rules_in_nine_and_groups_in_eight() {
    let nine = site(ProxmoxConfig::default().grant("/", "Sys.Console"), Clock::ZERO);
    nine.proxmox.add_foreign(101, "a", "pve1");
    nine.proxmox.add_foreign(102, "b", "pve2");
    for sid in ["vm:101", "102"] {
        nine.call("POST", "/cluster/ha/resources", &[("sid", sid), ("state", "started")]).await.data();
    }
    let rule = [
        ("rule", "apart"),
        ("type", "resource-affinity"),
        ("affinity", "negative"),
        ("resources", "vm:101,vm:102"),
    ];
    nine.call("POST", "/cluster/ha/rules", &rule).await.data();
    let one =
        [("rule", "one"), ("type", "resource-affinity"), ("affinity", "negative"), ("resources", "vm:101")];
    let refused = nine.call("POST", "/cluster/ha/rules", &one).await;
    assert_eq!(
        (refused.status, refused.reason.as_str()),
        (500, "create ha rule failed: 400 Rule 'one' is invalid.")
    );
    let groups = nine.call("GET", "/cluster/ha/groups", &[]).await;
    assert_eq!(groups.reason, "cannot index groups: ha groups have been migrated to rules");
    nine.call("DELETE", "/cluster/ha/resources/vm:101", &[]).await.data();
    assert_eq!(nine.get("/cluster/ha/rules").await[0]["resources"], "vm:102");

    let eight = site(ProxmoxConfig::of(Generation::V8).grant("/", "Sys.Console"), Clock::ZERO);
    assert_eq!(eight.get("/version").await["version"], "8.4.1");
    assert_eq!(eight.call("GET", "/cluster/ha/rules", &[]).await.status, 501);
    eight.call("POST", "/cluster/ha/groups", &[("group", "g1"), ("nodes", "pve1:2,pve2")]).await.data();
}

#[tokio::test]
async fn a_seed_is_read_from_an_uploaded_image() {
    let site = with_template().await;
    let clone = [("newid", "3001"), ("name", "from-proxmox"), ("pool", "k8s-prod")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    let user = "#cloud-config\nhostname: prod-cp-1\nusers:\n  - name: kubeline\n    sudo: ALL=(ALL) NOPASSWD:ALL\n    \
                ssh_authorized_keys:\n      - ssh-ed25519 AAAA operator\nssh_keys:\n  ed25519_private: |\n    \
                -----BEGIN OPENSSH PRIVATE KEY-----\n    b3Bl\n    -----END OPENSSH PRIVATE KEY-----\n  \
                ed25519_public: ssh-ed25519 AAAA host\n";
    let network = "version: 2\nethernets:\n  nic0:\n    match:\n      macaddress: 'bc:24:11:00:00:01'\n    \
                   addresses: [10.30.0.21/24]\n    nameservers:\n      addresses: [10.30.0.1]\n    routes:\n      \
                   - to: default\n        via: 10.30.0.1\n";
    let meta = "instance-id: i-1\nlocal-hostname: other\n";
    let image =
        pve_support::iso("cidata", &[("user-data", user), ("meta-data", meta), ("network-config", network)]);
    let file = reqwest::multipart::Part::bytes(image).file_name("seed-3001.iso");
    let form = reqwest::multipart::Form::new().text("content", "iso").part("filename", file);
    let upload = site.request("POST", "pve1", "/nodes/pve1/storage/local/upload").multipart(form);
    let got = pve_support::read(upload.send().await.unwrap()).await;
    assert!(got.closes);
    let upid = got.data();
    assert_eq!(site.exit(upid.as_str().unwrap()).await, "OK");
    let change = [("ide2", "local:iso/seed-3001.iso,media=cdrom")];
    site.call("PUT", &format!("{Q}/3001/config"), &change).await.data();
    assert_eq!(site.task("POST", &format!("{Q}/3001/status/start"), &[]).await, "OK");
    let boot = site.machines.on.lock().unwrap()[&3001].clone();
    assert_eq!((boot.name.as_str(), boot.user.as_str()), ("prod-cp-1", "kubeline"));
    assert_eq!(boot.address, "10.30.0.21".parse().ok());
    assert_eq!(boot.authorized_keys, ["ssh-ed25519 AAAA operator"]);
    assert_eq!(boot.host_keys.len(), 1);
    assert!(boot.host_keys[0].starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n"));
    let gone = site
        .call("DELETE", "/nodes/pve1/storage/local/content/local:iso/seed-3001.iso", &[("delay", "5")])
        .await;
    assert_eq!(gone.data(), serde_json::Value::Null);
}

#[tokio::test]
async fn a_container_lives() {
    let site = quick();
    let template =
        [("url", "https://x/debian-13.tar.zst"), ("filename", "debian-13.tar.zst"), ("content", "vztmpl")];
    assert_eq!(site.task("POST", "/nodes/pve1/storage/local/download-url", &template).await, "OK");
    let create = [
        ("vmid", "3101"),
        ("ostemplate", "local:vztmpl/debian-13.tar.zst"),
        ("hostname", "lb-1"),
        ("rootfs", "local-lvm:8"),
        ("net0", "name=eth0,bridge=vmbr0,ip=10.30.0.11/24,gw=10.30.0.1"),
        ("ssh-public-keys", "ssh-ed25519 AAAA operator"),
        ("unprivileged", "1"),
        ("features", "nesting=1"),
        ("pool", "k8s-prod"),
        ("start", "1"),
    ];
    assert_eq!(site.task("POST", "/nodes/pve1/lxc", &create).await, "OK");
    let boot = site.machines.on.lock().unwrap()[&3101].clone();
    assert_eq!((boot.user.as_str(), boot.address), ("root", "10.30.0.11".parse().ok()));
    assert_eq!(boot.disks, [8 << 30]);
    let keyctl = site.call("PUT", "/nodes/pve1/lxc/3101/config", &[("features", "nesting=1,keyctl=1")]).await;
    assert_eq!(keyctl.reason, "changing feature flags (except nesting) is only allowed for root@pam");
    let again = site.call("POST", "/nodes/pve1/lxc/3101/status/start", &[]).await;
    assert_eq!(again.reason, "CT 3101 already running");
    let size = [("disk", "rootfs"), ("size", "8G")];
    let same = site.task("PUT", "/nodes/pve1/lxc/3101/resize", &size).await;
    assert_eq!(same, "disk is already at specified size");
    let migrate = "/nodes/pve1/lxc/3101/migrate";
    let running = site.call("POST", migrate, &[("target", "pve2")]).await;
    assert_eq!(running.reason, "can't migrate running container without --online or --restart");
    let here = site.call("POST", migrate, &[("target", "pve1"), ("restart", "1")]).await;
    assert_eq!((here.status, &here.body["errors"]["target"]), (400, &"target is local node.".into()));
    let live = site.task("POST", migrate, &[("target", "pve2"), ("online", "1")]).await;
    assert_eq!(live, "lxc live migration is currently not implemented");
    assert_eq!(site.task("POST", migrate, &[("target", "pve2"), ("restart", "1")]).await, "OK");
    let moved = site.proxmox.view().into_iter().find(|g| g.vmid == 3101).unwrap();
    assert_eq!(
        (moved.node.as_str(), moved.running),
        ("pve2", true),
        "switched off, carried over, switched on"
    );
    let volume = moved.config["rootfs"].split(',').next().unwrap().to_owned();
    let there = |node: &str| site.proxmox.volumes(node).contains(&volume);
    assert!(there("pve2") && !there("pve1"));
    assert_eq!(site.task("POST", "/nodes/pve2/lxc/3101/status/stop", &[]).await, "OK");
    assert_eq!(site.task("POST", "/nodes/pve2/lxc/3101/migrate", &[("target", "pve1")]).await, "OK");
    assert_eq!(site.task("DELETE", "/nodes/pve1/lxc/3101", &[("purge", "1")]).await, "OK");
    assert!(site.proxmox.view().is_empty());
}

#[tokio::test]
async fn a_base_in_use_stays_where_the_storage_notices() {
    let site =
        site(ProxmoxConfig::default().with_shared("nfs1").grant("/vms/9000", "VM.Allocate"), Clock::ZERO);
    site.proxmox.add_template(9000, "t", "pve1", "nfs1");
    let clone = [("newid", "3001"), ("pool", "k8s-prod"), ("target", "pve3")];
    assert_eq!(site.task("POST", &format!("{Q}/9000/clone"), &clone).await, "OK");
    let config = site.get("/nodes/pve3/qemu/3001/config").await;
    assert!(
        config["scsi0"]
            .as_str()
            .unwrap()
            .starts_with("nfs1:9000/base-9000-disk-0.qcow2/3001/vm-3001-disk-0.qcow2,")
    );
    let exit = site.task("DELETE", &format!("{Q}/9000"), &[]).await;
    assert_eq!(exit, "base volume 'nfs1:9000/base-9000-disk-0.qcow2' is still in use by linked cloned");
    assert_eq!(site.task("DELETE", "/nodes/pve3/qemu/3001", &[]).await, "OK");
    assert_eq!(site.task("DELETE", &format!("{Q}/9000"), &[]).await, "OK");
}
