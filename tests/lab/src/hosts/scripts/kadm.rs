//! The scripts of kadm-bootstrap: the look at a machine, swap, the repository's key, cleaning up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest, Sha256};

use super::{Script, backup};
use crate::hosts::Machine;
use crate::hosts::kubeadm;
use crate::hosts::machine::KERNEL;
use crate::hosts::packages::{CONFFILES, RELEASE_KEY};
use crate::hosts::programs::{Ctx, Output, Run, net, systemctl};
use crate::hosts::units::State;

/// The scripts.
pub const TABLE: &[Script] = &[
    ("kadm-look v6", false, Run::Quick(look)),
    ("kadm-probe v1", false, Run::Slow(probe)),
    ("kadm-wal v1", false, Run::Quick(wal)),
    ("kadm-busy v1", false, Run::Quick(busy)),
    ("kadm-swap v1", false, Run::Quick(swap)),
    ("kadm-key v1", false, Run::Slow(key)),
    ("kadm-images v1", false, Run::Slow(images)),
    ("kadm-pin v1", false, Run::Slow(pin)),
    ("kadm-clean v4", false, Run::Quick(clean)),
    ("kadm-restart v1", false, Run::Slow(restart)),
    ("kadm-snapshot v2", false, Run::Quick(backup::snapshot)),
    ("kadm-backup v2", false, Run::Quick(backup::backup)),
    ("kadm-aside v1", false, Run::Quick(backup::aside)),
    ("kadm-restore v1", false, Run::Quick(backup::restore)),
];

const PACKAGES: [&str; 8] =
    ["containerd", "containerd.io", "kubeadm", "kubelet", "kubectl", "chrony", "age", "nfs-common"];
const UNITS: [&str; 8] = [
    "containerd",
    "kubelet",
    "systemd-timesyncd",
    "chrony",
    "ntpsec",
    "openntpd",
    "ntp",
    "kubeline-etcd-backup.timer",
];
const STATE: [&str; 14] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/bootstrap-kubelet.conf",
    "/etc/kubernetes/manifests/etcd.yaml",
    "/etc/kubernetes/manifests/kube-apiserver.yaml",
    "/etc/kubernetes/manifests/kube-controller-manager.yaml",
    "/etc/kubernetes/manifests/kube-scheduler.yaml",
    "/etc/kubernetes/pki/ca.crt",
    "/etc/kubernetes/pki/ca.key",
    "/var/lib/kubelet/config.yaml",
    "/var/lib/etcd/member",
];
const CERTIFICATES: [&str; 8] = [
    "ca",
    "apiserver",
    "apiserver-etcd-client",
    "apiserver-kubelet-client",
    "front-proxy-client",
    "etcd/server",
    "etcd/peer",
    "etcd/healthcheck-client",
];
const SYSCTLS: [&str; 8] = [
    "net.ipv4.ip_forward",
    "net.bridge.bridge-nf-call-iptables",
    "net.bridge.bridge-nf-call-ip6tables",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "kernel.panic",
    "kernel.panic_on_oops",
    "vm.overcommit_memory",
];

/// What a word and the rest of its line tell, one fact a line.
struct Facts(String);

impl Facts {
    fn say(&mut self, word: &str, rest: impl AsRef<str>) {
        self.0.push_str(format!("{word} {}", rest.as_ref()).trim_end());
        self.0.push('\n');
    }
}

/// Whether a kubeadm runs.
fn busy(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() {
        return ctx.unknown("kadm-busy v1", args);
    }
    Output::code(i32::from(ctx.machine().kube.runs == 0))
}

/// `$1` a folder of packages or nothing, then the managed files.
fn look(ctx: &mut Ctx, args: &[String]) -> Output {
    let Some((debs, paths)) = args.split_first() else { return ctx.unknown("kadm-look v6", args) };
    if !ctx.root() {
        return ctx.unknown("kadm-look v6 without root", args);
    }
    kubeadm::cluster::keep_serving(&ctx.hosts, &ctx.host);
    let machine = ctx.machine();
    let mut facts = Facts(String::new());
    hardware(&machine, &mut facts);
    software(&machine, paths, &mut facts);
    kubernetes(&machine, &mut facts);
    for key in SYSCTLS {
        if let Some(value) = machine.sysctl.get(key) {
            facts.say("sysctl", format!("{key} {value}"));
        }
    }
    let names = machine.fs.list(debs).unwrap_or_default();
    for name in names.iter().filter(|n| !debs.is_empty() && n.ends_with(".deb")) {
        facts.say("deb", format!("{debs}/{name}"));
    }
    Output::ok(facts.0)
}

fn hardware(machine: &Machine, facts: &mut Facts) {
    let fs = &machine.fs;
    facts.say("hostname", fs.text("/etc/hostname").trim());
    facts.say("machine-id", fs.text("/etc/machine-id").trim());
    facts.say("product-uuid", fs.text("/sys/class/dmi/id/product_uuid").trim());
    if !machine.boot.mac.is_empty() {
        facts.say("mac", &machine.boot.mac);
    }
    let release = fs.text("/etc/os-release");
    let field = |name: &str| {
        let line = release.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
        line.trim_matches('"').to_string()
    };
    facts.say("os", format!("{} {}", field("ID="), field("VERSION_ID=")));
    facts.say("cpus", machine.boot.cores.max(1).to_string());
    facts.say("memory", (machine.boot.memory_mib * 1024).to_string());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    facts.say("time", now.as_secs().to_string());
    facts.say("cgroup", if fs.exists("/sys/fs/cgroup/cgroup.controllers") { "2" } else { "1" });
    let release = fs.text("/proc/sys/kernel/osrelease");
    facts.say("kernel", if release.is_empty() { KERNEL } else { release.trim() });
    if machine.swap {
        facts.say("swap", "on");
    }
    let fstab = fs.text("/etc/fstab");
    if fstab.lines().any(swap_entry) {
        facts.say("swap", "boot");
    }
    // Every kernel of the lab has overlay built in or as a module of the same name.
    for module in ["overlay", "br_netfilter"].iter().filter(|m| machine.modules.contains(**m)) {
        facts.say("module", module);
    }
}

fn swap_entry(line: &str) -> bool {
    !line.starts_with('#') && line.split_whitespace().nth(2) == Some("swap")
}

fn software(machine: &Machine, paths: &[String], facts: &mut Facts) {
    for name in PACKAGES {
        if let Some(version) = machine.packages.package(name) {
            let want = if machine.packages.is_held(name) { "hold" } else { "install" };
            facts.say("package", format!("{name} {version} {want} installed"));
        }
    }
    for name in ["containerd", "kubeadm", "kubelet", "kubectl"] {
        if let Some(version) = machine.packages.local.get(name) {
            facts.say("program", format!("{name} {version}"));
        }
    }
    for (name, _, path) in PINS {
        let Ok(content) = machine.fs.read(path) else { continue };
        match machine.fs.read(&format!("/var/lib/kubeline/pinned/{name}")) {
            Err(_) => facts.say("unowned", path),
            Ok(note) if ["crictl", "cni-plugins", "containerd"].contains(&name) => {
                facts.say("pinned", format!("{name} {}", String::from_utf8_lossy(note).trim()));
            }
            Ok(_) => facts.say("pinned", format!("{name} {}", hex(content))),
        }
    }
    for unit in UNITS {
        let state = match machine.services.get(unit).state {
            State::Active => "active",
            State::Restarting => "activating",
            State::Failed => "failed",
            _ => "inactive",
        };
        facts.say("unit", format!("{unit} {state}"));
    }
    for path in paths {
        let Ok(content) = machine.fs.read(path) else { continue };
        let first = content.split(|b| *b == b'\n').next().unwrap_or_default();
        let whose = if String::from_utf8_lossy(first).contains("Managed by kubeline (kadm-bootstrap)") {
            "ours"
        } else if CONFFILES.iter().any(|(_, p, text)| p == path && text.as_bytes() == content) {
            "pristine"
        } else {
            "foreign"
        };
        facts.say("file", format!("{whose} {} {path}", hex(content)));
    }
}

fn kubernetes(machine: &Machine, facts: &mut Facts) {
    let fs = &machine.fs;
    for path in STATE.iter().filter(|p| fs.exists(p)) {
        facts.say("state", path);
    }
    for (pod, image) in kubeadm::manifests::static_pods(machine) {
        facts.say("static", format!("{pod} {}", image.rsplit(':').next().unwrap_or_default()));
        let text = fs.text(&format!("/etc/kubernetes/manifests/{pod}.yaml"));
        let served = match pod.as_str() {
            "etcd" => text.contains("--listen-metrics-urls=http://0.0.0.0:"),
            "kube-apiserver" => false,
            _ => text.contains("--bind-address=0.0.0.0"),
        };
        if served {
            facts.say("metrics", &pod);
        }
        if pod == "etcd" && !text.contains("--initial-cluster-state=existing") {
            facts.say("begins-anew", "");
        }
    }
    if let Ok(config) = fs.read("/var/lib/kubelet/config.yaml") {
        facts.say("kubelet", STANDARD.encode(config));
    }
    if fs.exists("/var/lib/kubeline/kadm-kubelet") {
        facts.say("configuring", "");
    }
    if fs.exists("/var/lib/kubeline/kadm-programs") {
        facts.say("exchanging", "");
    }
    let pem = fs.text(kubeadm::kubelet::SERVING);
    if let Some(end) = pem.find("-----END CERTIFICATE-----") {
        facts.say("serves", STANDARD.encode(format!("{}-----END CERTIFICATE-----\n", &pem[..end])));
    }
    for name in fs.list("/var/lib/kubeline").unwrap_or_default() {
        if name.starts_with("etcd-before-") && name.ends_with(".db") {
            facts.say("snapshot", format!("/var/lib/kubeline/{name}"));
        }
    }
    for name in fs.list("/etc/cni/net.d").unwrap_or_default() {
        if name.starts_with("10-") || name.contains("calico") {
            facts.say("remains", format!("/etc/cni/net.d/{name}"));
        }
    }
    if fs.exists("/var/lib/cni") {
        facts.say("remains", "/var/lib/cni");
    }
    for name in fs.list("/run").unwrap_or_default().iter().filter(|n| n.starts_with("kubeline-kadm-")) {
        facts.say("left", format!("/run/{name}"));
    }
    if fs.exists("/var/lib/kubeline/kadm-init") {
        facts.say("intent", "");
    }
    if fs.exists("/var/lib/kubeline/kadm-renewing") {
        facts.say("renewing", "");
    }
    for name in CERTIFICATES {
        if let Ok(pem) = fs.read(&format!("/etc/kubernetes/pki/{name}.crt")) {
            facts.say("certificate", format!("{name} {}", STANDARD.encode(pem)));
        }
    }
    let value = |text: &str, key: &str| {
        text.lines().find_map(|l| l.trim().strip_prefix(key)).unwrap_or_default().trim().to_string()
    };
    for name in ["admin", "controller-manager", "scheduler"] {
        let path = format!("/etc/kubernetes/{name}.conf");
        if fs.exists(&path) {
            let data = value(&fs.text(&path), "client-certificate-data:");
            facts.say("certificate", format!("{name}.conf {data}"));
        }
    }
    if fs.exists("/etc/kubernetes/kubelet.conf") {
        facts.say("server", value(&fs.text("/etc/kubernetes/kubelet.conf"), "server:"));
    }
}

pub(super) fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// What the disk is taken to do, unless a test wrote other numbers here.
const DISK: &str = "/etc/lab/fsync";

/// `$1` the folder whose disk is tried, or nothing; the others are `ADDRESS:PORT`.
fn probe<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let Some((disk, ways)) = args.split_first() else { return ctx.unknown("kadm-probe v1", args) };
        if !ctx.root() {
            return ctx.unknown("kadm-probe v1 without root", args);
        }
        let mut facts = Facts(String::new());
        for (address, port) in net::listening(ctx) {
            facts.say("listen", format!("LISTEN 0      4096   {address}:{port} 0.0.0.0:*"));
        }
        if !disk.is_empty() {
            let said = ctx.machine().fs.text(DISK);
            facts.say("fsync", if said.is_empty() { "1000 1200 4100" } else { said.trim() });
        }
        for way in ways {
            let what = match kubeadm::discovery::reach(ctx, way).await {
                Ok(_) => "open".to_owned(),
                Err(why) if why.ends_with("connection refused") => "refused".to_owned(),
                Err(why) if why.ends_with("no route to host") => "No route to host".to_owned(),
                Err(why) => return Output::fail(1, why),
            };
            facts.say("reach", format!("{way} {what}"));
        }
        Output::ok(facts.0)
    }
    .boxed()
}

/// What etcd counted of its fsyncs, unless a test wrote other lines here: upper bounds in seconds and cumulative counts.
const WAL: &str = "/etc/lab/wal";

/// The histogram of etcd's fsyncs, while it runs.
fn wal(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("kadm-wal v1", args);
    }
    let machine = ctx.machine();
    if crate::hosts::etcd::runs(&machine).is_none() {
        return Output::quiet();
    }
    let said = machine.fs.text(WAL);
    let said = if said.is_empty() { "0.001 9000\n0.002 9950\n0.004 10000\n+Inf 10000\n" } else { &said };
    let buckets = said.lines().filter_map(|l| l.split_once(' '));
    let line =
        |(le, n): (&str, &str)| format!("etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"{le}\"}} {n}\n");
    Output::ok(buckets.map(line).collect::<String>())
}

/// The kubelet ends, the moment is told, and it begins.
fn restart<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        if !args.is_empty() || !ctx.root() {
            return ctx.unknown("kadm-restart v1", args);
        }
        let stopped = systemctl::systemctl(ctx, &["stop".into(), "kubelet".into()]).await;
        if stopped.exit != 0 {
            return stopped;
        }
        let now = time::OffsetDateTime::now_utc();
        let mut started = systemctl::systemctl(ctx, &["start".into(), "kubelet".into()]).await;
        started.stdout = format!("{}\n", crate::clock::micro_time(now)).into_bytes();
        started
    }
    .boxed()
}

fn swap(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("kadm-swap v1", args);
    }
    ctx.changes();
    let mut machine = ctx.machine();
    machine.swap = false;
    let fstab = machine.fs.text("/etc/fstab");
    let without: String = fstab
        .lines()
        .map(|l| if swap_entry(l) { format!("# kubeline: {l}\n") } else { format!("{l}\n") })
        .collect();
    machine.fs.put("/etc/fstab", without, 0o644, "root", "root");
    Output::quiet()
}

/// `$1` the address, `$2` the digest, `$3` the path.
fn key<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let [url, sha256, path] = args else { return ctx.unknown("kadm-key v1", args) };
        if !ctx.root() {
            return Output::fail(100, "E: Could not open file: Permission denied");
        }
        let body = if url.starts_with("https://pkgs.k8s.io/") && url.ends_with("/Release.key") {
            RELEASE_KEY.as_bytes().to_vec()
        } else {
            match net::fetch(ctx, url, false, None).await {
                Ok((200, body)) => body,
                Ok((status, _)) => return Output::fail(100, format!("E: Failed to fetch {url}  {status}")),
                Err((_, why)) => return Output::fail(100, format!("E: Failed to fetch {url}  {why}")),
            }
        };
        if hex(&body) != *sha256 {
            return Output::fail(100, format!("E: Failed to fetch {url}  Hash Sum mismatch"));
        }
        ctx.changes();
        let mut machine = ctx.machine();
        let _ = machine.fs.mkdir_p(&crate::hosts::fs::parent(path), 0o755);
        machine.fs.put(path, body, 0o644, "root", "root");
        Output::quiet()
    }
    .boxed()
}

/// `$1` the version, `$2` the registry.
fn images<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let [version, registry] = args else { return ctx.unknown("kadm-images v1", args) };
        if !ctx.root() || !ctx.machine().packages.provides("kubeadm") {
            return Output::fail(127, "sh: 5: kubeadm: not found");
        }
        if !ctx.machine().services.active("containerd") {
            return Output::fail(
                1,
                "validate CRI v1 image API for endpoint \"unix:///run/containerd/containerd.sock\"",
            );
        }
        ctx.changes();
        for image in kubeadm::images::of(version, registry) {
            kubeadm::images::fetch(ctx, &image).await;
        }
        Output::quiet()
    }
    .boxed()
}

/// What can be pinned: the name, the package that would bring it, and the file that shows it.
const PINS: [(&str, &str, &str); 7] = [
    ("kubeadm", "kubeadm", "/usr/local/bin/kubeadm"),
    ("kubelet", "kubelet", "/usr/local/bin/kubelet"),
    ("kubectl", "kubectl", "/usr/local/bin/kubectl"),
    ("crictl", "cri-tools", "/usr/local/bin/crictl"),
    ("cni-plugins", "kubernetes-cni", "/opt/cni/bin/bridge"),
    ("containerd", "containerd", "/usr/local/bin/containerd"),
    ("runc", "runc", "/usr/local/sbin/runc"),
];

/// `$1` the name, `$2` program or archive, `$3` the address, `$4` the digest, `$5` the folder, `$6` the version or nothing.
/// A file is gone: what lay in /usr/local is not in the PATH any more.
pub fn gone(machine: &mut crate::hosts::Machine, path: &str) {
    if let Some((_, package, _)) = PINS.iter().find(|(.., shows)| *shows == path) {
        machine.packages.local.remove(*package);
    }
}

fn pin<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let [name, kind, url, sha256, folder, version] = args else {
            return ctx.unknown("kadm-pin v1", args);
        };
        let known = PINS.iter().find(|(n, _, path)| n == name && crate::hosts::fs::parent(path) == *folder);
        let archive = ["crictl", "cni-plugins", "containerd"].contains(&name.as_str());
        let Some((_, package, path)) = known.filter(|_| ctx.root() && (kind == "archive") == archive) else {
            return ctx.unknown("kadm-pin v1", args);
        };
        let body = match net::fetch(ctx, url, false, None).await {
            Ok((200, body)) => body,
            Ok((status, _)) => return Output::fail(100, format!("E: Failed to fetch {url}  {status}")),
            Err((_, why)) => return Output::fail(100, format!("E: Failed to fetch {url}  {why}")),
        };
        if hex(&body) != *sha256 {
            return Output::fail(100, format!("E: Failed to fetch {url}  Hash Sum mismatch"));
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        let told = text.trim().strip_prefix(&format!("lab's {name} ")).map(str::to_owned);
        let Some(told) = told else {
            return Output::fail(126, format!("{path}: cannot execute binary file: Exec format error"));
        };
        if !version.is_empty() && told != format!("v{version}") {
            return Output::fail(65, format!("{url} is {name} {told}, and not v{version}"));
        }
        ctx.changes();
        {
            let mut machine = ctx.machine();
            for dir in [folder.as_str(), "/var/lib/kubeline/pinned"] {
                let _ = machine.fs.mkdir_p(dir, 0o755);
            }
            machine.fs.put(path, body, 0o755, "root", "root");
            machine.packages.local.insert((*package).to_owned(), told.trim_start_matches('v').to_owned());
            if name == "kubeadm" {
                machine.kube.kubeadm_version = Some(told.trim_start_matches('v').to_owned());
            }
        }
        if name == "containerd" {
            let restarted = systemctl::systemctl(ctx, &["try-restart".into(), "containerd".into()]).await;
            if restarted.exit != 0 {
                return restarted;
            }
        }
        let mut machine = ctx.machine();
        let note = format!("/var/lib/kubeline/pinned/{name}");
        machine.fs.put(&note, format!("{sha256}\n"), 0o644, "root", "root");
        Output::quiet()
    }
    .boxed()
}

fn clean(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("kadm-clean v4", args);
    }
    ctx.changes();
    let mut machine = ctx.machine();
    machine.services.set("kubelet", State::Inactive, 0);
    let nets = machine.fs.list("/etc/cni/net.d").unwrap_or_default();
    for name in nets.iter().filter(|n| n.starts_with("10-") || n.contains("calico")) {
        machine.fs.remove_all(&format!("/etc/cni/net.d/{name}"));
    }
    for path in [
        "/var/lib/cni",
        "/var/lib/calico",
        "/run/calico",
        "/var/lib/etcd/member",
        "/var/lib/kubeline/kadm-init",
        "/var/lib/kubeline/kadm-renewing",
        "/var/lib/kubeline/kadm-kubelet",
        "/var/lib/kubeline/kadm-programs",
    ] {
        machine.fs.remove_all(path);
    }
    let left = machine.fs.list("/run").unwrap_or_default();
    for name in left.iter().filter(|n| n.starts_with("kubeline-kadm-")) {
        machine.fs.remove_all(&format!("/run/{name}"));
    }
    Output::quiet()
}
