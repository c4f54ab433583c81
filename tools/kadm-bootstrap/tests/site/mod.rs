//! A lab with machines, an address for the API, and runs of the tool in the process.

#![allow(dead_code, reason = "each test file uses a part")]

mod kill;
mod picture;
pub mod secrets;

use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_doc::Exit;
use kadm_bootstrap::KadmBootstrap;
use lab::hosts::Hosts;
use lab::kube::Kube;
use lab::world::{Boot, Kubernetes as _, World};
use lab::{Clock, Entry, Faults, Journal, Subnet};
use serde_json::{Value, json};
use stage::Edges;

const SSH: u16 = 2222;
/// A kubeconfig of the operator's for several clusters.
pub const PEOPLE: &str = "people.conf";

/// The world and its files.
pub struct Site {
    pub world: Arc<World>,
    pub kube: Kube,
    pub hosts: Hosts,
    pub control_planes: u8,
    pub workers: u8,
    dir: tempfile::TempDir,
}

/// How a run ended and what it said.
pub struct Ran {
    pub exit: Exit,
    pub crashed: bool,
    pub out: String,
    pub err: String,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Shared {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Site {
    /// Machines that answer over SSH, and a load balancer that holds the VIP.
    pub async fn new(control_planes: u8, workers: u8) -> Site {
        Site::timed(control_planes, workers, Clock::ZERO).await
    }

    /// The same with latencies; machines and load balancer themselves are there without any.
    pub async fn timed(control_planes: u8, workers: u8, clock: Clock) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(World {
            clock,
            journal: Journal::default(),
            faults: Faults::default(),
            net: Subnet::claim().unwrap(),
            dir: dir.path().into(),
        });
        let kube = Kube::new(world.clone());
        let hosts = Hosts::new(world.clone(), Arc::new(kube.clone()), SSH);
        let key: russh::keys::PrivateKey =
            russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[9; 32]).into();
        let path = dir.path().join("id_ed25519");
        std::fs::write(&path, key.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap().as_bytes())
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let site = Site { world, kube, hosts, control_planes, workers, dir };
        let public = key.public_key().to_openssh().unwrap();
        for (name, last) in site.machines() {
            site.hosts.add(Boot {
                name,
                address: Some(site.world.net.host(last)),
                mac: format!("bc:24:11:00:00:{last:02x}"),
                user: "kubeline".into(),
                authorized_keys: vec![public.clone()],
                cores: 4,
                memory_mib: 8192,
                disks: vec![40 << 30],
                ..Boot::default()
            });
        }
        for (name, last) in site.machines() {
            site.answers(&name, last).await;
        }
        site.balancer().await;
        site
    }

    /// A cluster that is there, made from a document.
    pub async fn of(control_planes: u8, workers: u8, document: impl Fn(&Site) -> Value) -> Site {
        let site = Site::new(control_planes, workers).await;
        site.done(&[], &document(&site)).await;
        site
    }

    /// A cluster that is there, of all machines but `later`.
    pub async fn made(control_planes: u8, workers: u8, later: &[&str]) -> Site {
        Site::of(control_planes, workers, |site| site.without(later, &[])).await
    }

    /// The same with a pod network.
    pub async fn running(control_planes: u8, workers: u8, later: &[&str]) -> Site {
        let site = Site::made(control_planes, workers, later).await;
        site.network().await;
        site
    }

    fn machines(&self) -> Vec<(String, u8)> {
        let mut all = vec![("lb-1".to_owned(), 11)];
        all.extend((1..=self.control_planes).map(|n| (format!("cp-{n}"), 20 + n)));
        all.extend((1..=self.workers).map(|n| (format!("w-{n}"), 30 + n)));
        all
    }

    /// HAProxy and keepalived, as lb-render and vip-keepalive would leave them.
    async fn balancer(&self) {
        for argv in [&["apt-get", "update"][..], &["apt-get", "install", "-y", "haproxy", "keepalived"]] {
            assert_eq!(self.hosts.exec("lb-1", argv).await.unwrap().exit, 0);
        }
        let net = &self.world.net;
        let servers: String = (1..=self.control_planes)
            .map(|n| {
                format!("  server cp-{n} {}:6443 check check-ssl verify none inter 200\n", net.host(20 + n))
            })
            .collect();
        let haproxy = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\nfrontend api\n  \
             bind *:6443\n  default_backend api\nbackend api\n  option httpchk GET /readyz\n  http-check expect status 200\n{servers}"
        );
        let keepalived = format!(
            "vrrp_instance V {{\n interface eth0\n virtual_router_id 30\n priority 100\n virtual_ipaddress {{\n {}/24\n }}\n}}\n",
            net.host(10)
        );
        {
            let host = self.hosts.find("lb-1").unwrap();
            let mut machine = host.machine();
            machine.fs.put("/etc/haproxy/haproxy.cfg", haproxy, 0o644, "root", "root");
            machine.fs.put("/etc/keepalived/keepalived.conf", keepalived, 0o644, "root", "root");
        }
        let said = self.hosts.exec("lb-1", &["systemctl", "restart", "haproxy", "keepalived"]).await.unwrap();
        assert_eq!(said.exit, 0, "{}", String::from_utf8_lossy(&said.stderr));
        // As vip-keepalive leaves it: with latencies an election takes its time.
        self.until("the address is held", || !self.hosts.holders(self.world.net.host(10)).is_empty()).await;
    }

    /// The document of all machines.
    pub fn document(&self) -> Value {
        let key = lab::hosts::packages::RELEASE_KEY;
        let machines: Vec<Value> = self
            .machines()
            .iter()
            .skip(1)
            .map(|(name, last)| {
                let control_plane = name.starts_with("cp");
                let mut machine = json!({
                    "name": name,
                    "role": if control_plane { "control-plane" } else { "worker" },
                    "address": self.world.net.host(*last),
                    "hostKey": self.hosts.host_key(name).unwrap(),
                });
                if !control_plane {
                    let environment = if *last > 34 { "nonprod" } else { "prod" };
                    machine["labels"] = json!({ "environment": environment });
                    if *last > 34 {
                        machine["taints"] = json!(["environment=nonprod:NoSchedule"]);
                    }
                }
                machine
            })
            .collect();
        json!({
            "apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": { "name": "prod" },
            "spec": {
                "network": { "cidr": self.world.net.cidr() },
                "vip": { "address": self.world.net.host(10), "routerId": 30 },
                "ssh": { "user": "kubeline", "identityFile": "id_ed25519", "port": SSH },
                "machines": machines,
                "kubernetes": { "version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12",
                    "kubeconfig": "out/kubeconfig" },
                "artifacts": [{ "name": "kubernetes-apt-key",
                    "url": "https://pkgs.k8s.io/core:/stable:/v1.36/deb/Release.key",
                    "sha256": kadm_bootstrap::certificate::sha256(key.as_bytes()) }],
            },
            "status": { "lb-render": { "kept": [1, 2, 3] } },
        })
    }

    /// The document without some machines; those of them that `leave` stand in pve-vm's section, as leaving.
    pub fn without(&self, names: &[&str], leave: &[&str]) -> Value {
        let mut document = self.document();
        let machines = document["spec"]["machines"].as_array_mut().unwrap();
        let gone: Vec<Value> =
            machines.iter().filter(|m| names.contains(&m["name"].as_str().unwrap())).cloned().collect();
        machines.retain(|m| !names.contains(&m["name"].as_str().unwrap()));
        let leaving: Vec<Value> = gone
            .iter()
            .filter(|m| leave.contains(&m["name"].as_str().unwrap()))
            .map(|m| {
                json!({ "name": m["name"], "role": m["role"], "address": m["address"],
                    "hostKeys": [m["hostKey"]], "leaving": true })
            })
            .collect();
        document["status"]["pve-vm"] = json!({ "machines": leaving });
        document
    }

    /// A pod network, as cni-install would bring it, so that nodes become ready.
    pub async fn network(&self) {
        let id = self.kube.clusters().remove(0);
        self.kube.put(
            &id,
            json!({ "apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": { "name": "calico-node", "namespace": "kube-system" },
                "spec": { "selector": { "matchLabels": { "k8s-app": "calico-node" } },
                    "template": { "metadata": { "labels": { "k8s-app": "calico-node" } },
                        "spec": { "hostNetwork": true, "tolerations": [{ "operator": "Exists" }],
                            "containers": [{ "name": "calico-node", "image": "quay.io/calico/node:v3.32.1" }] } } } }),
        );
        let ready = || self.kube.list(&id, "v1", "Node").iter().all(|n| kadm_bootstrap::node::read(n).ready);
        self.until("all nodes are ready", ready).await;
    }

    /// A Deployment with a budget that wants one of its pods at all times.
    pub async fn workload(&self, id: &str, replicas: u32) {
        let labels = json!({ "app": "shop" });
        self.kube.put(
            id,
            json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
                "metadata": { "name": "shop", "namespace": "default" },
                "spec": { "minAvailable": 1, "selector": { "matchLabels": labels } } }),
        );
        self.kube.put(
            id,
            json!({ "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "shop", "namespace": "default" },
                "spec": { "replicas": replicas, "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": {
                        "containers": [{ "name": "shop", "image": "shop:1" }] } } } }),
        );
        let ready = || {
            let object = self.kube.get(id, "apps/v1", "Deployment", Some("default"), "shop");
            object.is_some_and(|o| o["status"]["availableReplicas"] == replicas)
        };
        self.until("the shop is open", ready).await;
        let counted = || {
            let object = self.kube.get(id, "policy/v1", "PodDisruptionBudget", Some("default"), "shop");
            object.is_some_and(|o| o["status"]["currentHealthy"] == replicas)
        };
        self.until("its budget is counted", counted).await;
    }

    /// The node of the shop's first pod.
    pub async fn pod_node(&self, id: &str) -> String {
        let pods = self.kube.list(id, "v1", "Pod");
        let pod = pods.iter().find(|p| p["metadata"]["labels"]["app"] == "shop").unwrap();
        pod["spec"]["nodeName"].as_str().unwrap().to_owned()
    }

    /// An experiment of the laws: this world, and a document for it.
    pub fn case(self, document: Value) -> laws::Case {
        let base = self.world.net.cidr();
        let base = base.rsplit_once('.').unwrap().0.to_owned();
        let mut same: Vec<(String, String)> = self
            .machines()
            .iter()
            .skip(1)
            .map(|(name, _)| (self.hosts.host_key(name).unwrap(), format!("key-of-{name}")))
            .collect();
        same.push((base, "127.x.y".to_owned()));
        let site = Arc::new(self);
        let seen = site.clone();
        laws::Case {
            journal: site.world.journal.clone(),
            faults: site.world.faults.clone(),
            dir: site.path(""),
            document: format!("{document:#}\n"),
            // What a kubeconfig and a key file hold; tokens and certificate keys are looked for by their shape.
            secrets: vec!["client-key-data".to_owned(), "PRIVATE KEY".to_owned()],
            same,
            picture: Box::new(move || {
                seen.no_secret_in_argv();
                format!("{:#}", seen.picture())
            }),
            keep: Box::new(site),
        }
    }

    /// A file of the operator's.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Runs the tool in the process.
    pub async fn run(&self, args: &[&str], document: &Value) -> Ran {
        self.run_until(args, document, None).await
    }

    /// A run that has to end well.
    pub async fn done(&self, args: &[&str], document: &Value) -> Ran {
        let ran = self.run(args, document).await;
        assert_eq!(ran.exit, Exit::Done, "{}\n{:#?}", ran.err, self.world.journal.unknown());
        ran
    }

    /// Runs the tool as if it were killed after so many steps.
    pub async fn run_until(&self, args: &[&str], document: &Value, crash_after: Option<usize>) -> Ran {
        let (out, err) = (Shared::default(), Shared::default());
        let input = std::io::Cursor::new(document.to_string().into_bytes());
        let mut edges = Edges::plain(input, out.clone(), err.clone(), self.dir.path().into());
        edges.crash_after = crash_after;
        let crashed = Arc::new(AtomicBool::new(false));
        edges.crashed = crashed.clone();
        let args = std::iter::once("kadm-bootstrap").chain(args.iter().copied()).map(Into::into).collect();
        let exit = stage::run::<KadmBootstrap>(args, edges).await;
        let crashed = crashed.load(std::sync::atomic::Ordering::SeqCst);
        Ran { exit, crashed, out: out.text(), err: err.text() }
    }

    /// What changed since a mark in the journal: a lock and its end leave no trace.
    pub fn changes(&self, mark: usize) -> Vec<Entry> {
        self.world.journal.changing_since(mark)
    }

    /// Fails when the lab was asked something that it does not know.
    pub fn nothing_unknown(&self) {
        let unknown = self.world.journal.unknown();
        assert!(unknown.is_empty(), "{unknown:#?}");
    }

    /// Waits until a machine takes SSH connections.
    pub async fn answers(&self, name: &str, last: u8) {
        let address = std::net::SocketAddr::from((self.world.net.host(last), SSH));
        let up = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
        self.until(&format!("{name} answers"), up).await;
    }

    /// Waits until a machine that was switched off takes none any more.
    pub async fn silent(&self, name: &str, last: u8) {
        let address = std::net::SocketAddr::from((self.world.net.host(last), SSH));
        let down = || std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err();
        self.until(&format!("{name} is silent"), down).await;
    }

    /// Switches a machine off, and waits until its node counts as lost.
    pub async fn lose(&self, name: &str, last: u8) {
        let vmid = self.hosts.find(name).unwrap().vmid;
        lab::world::Machines::power_off(&self.hosts, vmid);
        self.silent(name, last).await;
        let id = self.kube.clusters().remove(0);
        let lost = || addon::lost(&self.kube.list(&id, "v1", "Node")).contains_key(name);
        self.until(&format!("the node {name} is lost"), lost).await;
    }

    /// Gives a machine blank disks, as one that was deleted and made anew has them; its host key stays.
    pub async fn blank(&self, name: &str, last: u8) {
        let (vmid, mut boot) = {
            let host = self.hosts.find(name).unwrap();
            let machine = host.machine();
            let key = machine.host_key.to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap().to_string();
            (host.vmid, Boot { host_keys: vec![key], ..machine.boot.clone() })
        };
        lab::world::Machines::power_off(&self.hosts, vmid);
        self.silent(name, last).await;
        boot.generation += 1;
        lab::world::Machines::power_on(&self.hosts, boot);
        self.answers(name, last).await;
    }

    /// Takes etcd's data from a machine, as a disk that is gone and replaced does, and starts everything there again.
    pub async fn lose_etcd(&self, name: &str) {
        self.hosts.find(name).unwrap().machine().fs.remove_all("/var/lib/etcd/member");
        let said = self.hosts.exec(name, &["systemctl", "restart", "kubelet"]).await.unwrap();
        assert_eq!(said.exit, 0, "{}", String::from_utf8_lossy(&said.stderr));
    }

    /// Waits for evidence.
    pub async fn until(&self, what: &str, mut test: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !test() {
            assert!(Instant::now() < end, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The recorded transcripts, or why there are none.
pub fn facts() -> Result<PathBuf, String> {
    let given = std::env::var_os("KUBELINE_FACTS").map(PathBuf::from);
    let found = given.or_else(|| {
        let ancestors = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        ancestors.flat_map(|a| [a.join("shared/facts"), a.join("../shared/facts")]).find(|p| p.is_dir())
    });
    found
        .map(|f| f.join("kubeadm"))
        .filter(|f| f.is_dir())
        .ok_or_else(|| "shared/facts/kubeadm is not here".to_owned())
}
