//! Which API servers and kubelets run, as it follows from the machines.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::Ordering;

use super::{host_name, kubelet, manifests, pki};
use crate::hosts::units::State;
use crate::hosts::{Host, Hosts, Machine, etcd, lock};
use crate::world::{ApiServer, Kubelet};

/// What the Kubernetes window was told of each machine.
#[derive(Default)]
pub struct Shown {
    api: BTreeMap<u32, (String, String)>,
    kubelets: BTreeMap<u32, KubeletMark>,
}

/// What is told anew when it changes: cluster, node, process, static pods.
type KubeletMark = (String, String, u32, BTreeMap<String, String>);

impl Shown {
    /// True when the API server of a machine was told to be up.
    pub fn serves(&self, vmid: u32) -> bool {
        self.api.contains_key(&vmid)
    }
}

/// What runs of Kubernetes on a machine, as it follows from this many changes of it.
#[derive(Default)]
pub struct Looked {
    changes: u64,
    api: Option<ApiServer>,
    kubelet: Option<(String, Kubelet)>,
    /// The member of etcd that runs here: its cluster and its id.
    pub member: Option<(String, u64)>,
    /// Something starts etcd here, or did.
    pub etcd: bool,
}

impl Host {
    // Nearly all machines are as they were when they were last looked at.
    pub(crate) fn runs<R>(&self, tell: impl FnOnce(&Looked) -> R) -> R {
        let machine = self.machine();
        let mut looked = lock(&self.looked);
        let changes = self.changes.load(Ordering::Relaxed);
        if looked.changes != changes {
            *looked = Looked {
                changes,
                api: api_server(&machine),
                kubelet: node(&machine),
                member: etcd::runs(&machine),
                etcd: etcd::started(&machine) || machine.kube.etcd_ends.is_some(),
            };
        }
        tell(&looked)
    }

    // systemd starts a kubelet that ended again every ten seconds: it comes up as soon as it can.
    fn revive(&self) {
        let mut machine = self.machine();
        let news = lock(&self.looked).changes != self.changes.load(Ordering::Relaxed);
        if news
            && machine.up
            && machine.services.get("kubelet").state == State::Restarting
            && kubelet::health(&machine).is_ok()
        {
            machine.services.set("kubelet", State::Active, 0);
        }
    }
}

/// The cluster that a machine belongs to: the hash of its CA's key.
pub fn cluster_id(machine: &Machine) -> Option<String> {
    pki::key_hash(&machine.fs.text(&format!("{}/ca.crt", pki::DIR)))
}

fn api_server(machine: &Machine) -> Option<ApiServer> {
    let (cluster_id, _) = etcd::runs(machine)?;
    let manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml";
    if !machine.fs.exists(manifest) {
        return None;
    }
    let read = |name: &str| {
        machine.fs.read(&format!("{}/{name}", pki::DIR)).ok().map(|c| String::from_utf8_lossy(c).into_owned())
    };
    Some(ApiServer {
        host: machine.boot.name.clone(),
        listen: Some((machine.boot.address?, manifests::api_port(machine)).into()),
        certificate: read("apiserver.crt")?,
        key: read("apiserver.key")?,
        client_ca: read("ca.crt")?,
        ca_key: read("ca.key").unwrap_or_default(),
        version: manifests::api_version(machine),
        cluster_id,
    })
}

fn node(machine: &Machine) -> Option<(String, Kubelet)> {
    let runs = machine.up && machine.services.active("kubelet") && machine.services.active("containerd");
    if !runs || !machine.fs.exists("/etc/kubernetes/kubelet.conf") {
        return None;
    }
    let name = manifests::node_name(machine).unwrap_or_else(|| host_name(machine));
    let version = machine.kube.kubelet_runs.clone().unwrap_or_default();
    let kubelet = Kubelet {
        name,
        address: machine.boot.address,
        version: format!("v{version}"),
        control_plane: machine.fs.exists("/etc/kubernetes/manifests/kube-apiserver.yaml"),
        cores: machine.boot.cores,
        memory_mib: machine.boot.memory_mib,
        os_image: "Debian GNU/Linux 13 (trixie)".into(),
        static_pods: manifests::static_pods(machine),
        process: machine.services.get("kubelet").pid,
        asks: machine
            .fs
            .text("/var/lib/kubelet/config.yaml")
            .lines()
            .any(|l| l == "serverTLSBootstrap: true"),
        serves: machine.fs.exists(kubelet::SERVING),
    };
    Some((cluster_id(machine)?, kubelet))
}

/// Brings the Kubernetes window in line: servers and kubelets that ended first, then those that began.
pub fn settle(hosts: &Hosts) {
    for host in hosts.all() {
        host.revive();
    }
    etcd::begin(hosts);
    let mut servers = BTreeMap::new();
    let mut kubelets = BTreeMap::new();
    for host in hosts.all() {
        let vmid = host.vmid;
        host.runs(|now| {
            servers.extend(now.api.clone().map(|s| (vmid, s)));
            kubelets.extend(now.kubelet.clone().map(|k| (vmid, k)));
        });
    }
    let mut shown = hosts.shown();
    let mark = |s: &ApiServer| {
        (s.host.clone(), format!("{} {:?} {} {} {}", s.cluster_id, s.listen, s.version, s.certificate, s.key))
    };
    let ended: Vec<u32> = shown
        .api
        .iter()
        .filter(|(id, m)| servers.get(id).map(mark).as_ref() != Some(m))
        .map(|(id, _)| *id)
        .collect();
    for id in ended {
        if let Some((host, _)) = shown.api.remove(&id) {
            hosts.kube().api_down(&host);
        }
    }
    let mark_kubelet = |(cluster, k): &(String, Kubelet)| {
        (cluster.clone(), k.name.clone(), k.process, k.static_pods.clone())
    };
    let silent: Vec<u32> = shown
        .kubelets
        .iter()
        .filter(|(id, m)| {
            // Other static pods are the same kubelet's news.
            let now = kubelets.get(id).map(mark_kubelet);
            now.is_none_or(|n| (&n.0, &n.1, n.2) != (&m.0, &m.1, m.2))
        })
        .map(|(id, _)| *id)
        .collect();
    for id in silent {
        if let Some((cluster, node, ..)) = shown.kubelets.remove(&id) {
            hosts.kube().kubelet_down(&cluster, &node);
        }
    }
    for (id, server) in servers {
        if let Entry::Vacant(place) = shown.api.entry(id) {
            place.insert(mark(&server));
            hosts.kube().api_up(server);
        }
    }
    for (id, kubelet) in kubelets {
        let mark = mark_kubelet(&kubelet);
        if shown.kubelets.get(&id) != Some(&mark) {
            shown.kubelets.insert(id, mark);
            hosts.kube().kubelet_up(&kubelet.0, kubelet.1);
        }
    }
    drop(shown);
    etcd::settle(hosts);
    for host in hosts.all() {
        keep_serving(hosts, &host);
    }
}

/// A kubelet writes the serving certificate that it was given to its disk.
pub fn keep_serving(hosts: &Hosts, host: &Host) {
    let known = host.runs(|now| now.kubelet.clone());
    let Some((cluster, kubelet)) = known.filter(|(_, k)| k.asks && !k.serves) else { return };
    if let Some((certificate, key)) = hosts.kube().serving(&cluster, &kubelet.name) {
        host.machine().fs.put(kubelet::SERVING, certificate + &key, 0o600, "root", "root");
    }
}
