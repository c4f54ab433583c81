//! What the operator wants: every refusal of input is here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cluster_doc::spec::{Dataplane, Role};
use cluster_doc::{Document, Exit, KubeVersion, Machine};
use fleet::Route;
use kube_apply::ManifestSet;
use serde_json::Value;
use stage::{Failure, Site};

use crate::access::Merge;
use crate::approver;
use crate::args::Flags;
use crate::files::{self, Files};
use crate::node::{self, Node};
use crate::pin::{self, Pin};
use crate::source::{self, Source};

/// What the operator wants.
#[derive(Clone, Debug)]
pub struct Want {
    /// The cluster's name.
    pub cluster: String,
    /// The exact version.
    pub version: KubeVersion,
    /// `VIP:port`.
    pub endpoint: String,
    /// The port of the API server on its machine.
    pub api_port: u16,
    /// The operator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The same as the document has it.
    pub kubeconfig_shown: String,
    /// The kubeconfig of several clusters that the access is merged into.
    pub merge: Option<Merge>,
    /// The pods' network.
    pub pod_cidr: String,
    /// The services' network.
    pub service_cidr: String,
    /// The DNS domain.
    pub domain: String,
    /// Names and addresses in the API server's certificate.
    pub sans: Vec<String>,
    /// Checks of kubeadm that may fail.
    pub ignore: Vec<String>,
    /// Fields of KubeletConfiguration that the operator sets.
    pub kubelet: BTreeMap<String, Value>,
    /// The mode of kube-proxy.
    pub proxy_mode: &'static str,
    /// Where kubeadm takes images from.
    pub registry: String,
    /// The control planes, then the workers, each in the document's order.
    pub nodes: Vec<Node>,
    /// Machines that left the document and still exist.
    pub leaving: Vec<Node>,
    /// Where packages come from.
    pub source: Source,
    /// Programs that are had as their publishers' files, by name.
    pub pins: BTreeMap<String, Pin>,
    /// Files of the machines.
    pub files: Files,
    /// The approver of kubelets' certificates.
    pub approver: ManifestSet,
    /// A digest of it.
    pub approver_sha256: String,
    /// Machines to be reset although they may hold data.
    pub reset: BTreeSet<String>,
    /// Make a new cluster whatever there was.
    pub new_cluster: bool,
    /// How many workers may be out of service at once during an upgrade.
    pub max_unavailable: usize,
    /// How long the pods of one node may take to leave it.
    pub drain_timeout: Duration,
    /// The age recipient of backups, when the document asks for a timer that takes them.
    pub recipient: Option<String>,
    /// How the machines are reached.
    pub route: Route,
}

impl Want {
    /// The machine of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// The machine of this name, among those that leave too.
    pub fn any(&self, name: &str) -> Option<&Node> {
        self.node(name).or_else(|| self.leaving.iter().find(|n| n.name == name))
    }

    /// The machine of this name in a plan, which names none that the document does not know.
    pub(crate) fn known(&self, name: &str) -> Result<&Node, Failure> {
        self.any(name).ok_or_else(|| Failure::internal(format!("no node {name}")))
    }

    /// The control planes.
    pub fn control_planes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.control_plane)
    }

    /// The folder of package files, for the script; empty when there is none.
    pub fn debs(&self) -> &str {
        match &self.source {
            Source::Directory(folder) => folder,
            _ => "",
        }
    }
}

/// Reads flags and document.
///
/// # Errors
/// Exit 3 for the document, 2 for a flag that names no machine.
pub fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(crate::READS)?;
    let kubernetes = spec.kubernetes()?;
    let vip = spec.vip()?;
    let ssh = spec.ssh()?;
    let machines = doc.machines(&spec);
    let ours = |m: &&Machine| matches!(m.role, Role::ControlPlane | Role::Worker);
    let (leaving, staying): (Vec<&Machine>, Vec<&Machine>) =
        machines.iter().filter(ours).partition(|m| m.leaving);
    let of = |role: Role| staying.iter().filter(move |m| m.role == role).map(|m| node::wanted(m));
    let nodes: Vec<Node> = of(Role::ControlPlane).chain(of(Role::Worker)).collect();
    if !nodes.iter().any(|n| n.control_plane) {
        return Err(Failure::new(Exit::Refused, "the document has no machine of the role control-plane")
            .hint("give one or three: spec.pools[].role or spec.machines[].role \"control-plane\""));
    }
    for name in &flags.reset_host {
        if !nodes.iter().any(|n| n.name == *name) {
            let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
            return Err(Failure::new(
                Exit::Usage,
                format!("--reset-host {name}: the document has no such node"),
            )
            .hint(format!("it has: {}", names.join(", "))));
        }
    }
    let mut sans = vec![vip.address.to_string()];
    for node in nodes.iter().filter(|n| n.control_plane) {
        sans.extend([node.name.clone(), node.address.to_string()]);
    }
    sans.extend(kubernetes.cert_sans.iter().cloned());
    let mut known = BTreeSet::new();
    sans.retain(|s| known.insert(s.clone()));
    let registry = spec.registry.clone().unwrap_or_else(|| files::REGISTRY.to_owned());
    let registry = registry.trim_end_matches('/').to_owned();
    let source = source::of(&spec, kubernetes.version)?;
    let cluster = doc.name().map_or_else(|| "kubernetes".to_owned(), ToString::to_string);
    let saved = saved(&cluster, &spec, &machines)?;
    let files = files::render(kubernetes.version, &registry, &source, saved.as_ref())?;
    let (approver, approver_sha256) = approver::set(&nodes, vip, spec.registry.as_deref())?;
    // Those that leave are looked at too: they are drained and reset.
    let route = Route::new(machines.iter().filter(ours), ssh, site);
    Ok(Want {
        cluster,
        version: kubernetes.version,
        endpoint: format!("{}:{}", vip.address, vip.ports.api),
        api_port: kubernetes.api_port.get(),
        kubeconfig: site.path(&kubernetes.kubeconfig),
        kubeconfig_shown: kubernetes.kubeconfig.to_string(),
        merge: merge(flags, &site.path(&kubernetes.kubeconfig), site)?,
        pod_cidr: kubernetes.pod_cidr.to_string(),
        service_cidr: kubernetes.service_cidr.to_string(),
        domain: kubernetes.dns_domain.to_string(),
        sans,
        ignore: kubernetes.ignore_preflight_errors.clone(),
        kubelet: kubernetes.kubelet.fields().clone(),
        proxy_mode: proxy_mode(spec.cni.as_ref().map(|c| c.dataplane)),
        registry,
        nodes,
        leaving: leaving.iter().map(|m| node::wanted(m)).collect(),
        source,
        pins: pin::of(&spec, kubernetes.version)?,
        files,
        approver,
        approver_sha256,
        reset: flags.reset_host.iter().cloned().collect(),
        new_cluster: flags.new_cluster,
        max_unavailable: usize::from(flags.max_unavailable),
        drain_timeout: Duration::from_secs(flags.drain_timeout),
        recipient: spec.backup.as_ref().and_then(|b| b.etcd.as_ref()).map(|e| e.recipient.clone()),
        route,
    })
}

/// The file that the access is merged into; not the one that is this cluster's alone.
fn merge(flags: &Flags, own: &std::path::Path, site: &Site) -> Result<Option<Merge>, Failure> {
    let Some(path) = &flags.merge_kubeconfig else { return Ok(None) };
    let (shown, path) = (path.display().to_string(), site.absolute(path));
    if path == own {
        let why = format!(
            "--merge-kubeconfig {shown}: it is spec.kubernetes.kubeconfig, which holds this cluster alone"
        );
        return Err(Failure::new(Exit::Usage, why).hint("name another file, such as ~/.kube/config"));
    }
    Ok(Some(Merge { path, shown, switch: flags.use_context }))
}

/// How the document has etcd saved.
fn saved(
    cluster: &str,
    spec: &cluster_doc::Spec,
    machines: &[Machine],
) -> Result<Option<files::Saved>, Failure> {
    let Some(etcd) = spec.backup.as_ref().and_then(|b| b.etcd.as_ref()) else { return Ok(None) };
    let at = cluster_doc::Pointer::root().key("spec").key("backup").key("etcd");
    let refuse = |at: cluster_doc::Pointer, what: &str| Failure::from(cluster_doc::Refusals::one(at, what));
    // It stands in a script: what is no recipient must not be more than a refusal.
    if <age::x25519::Recipient as std::str::FromStr>::from_str(&etcd.recipient).is_err() {
        let why = "is no recipient of age; age-keygen prints one that begins with age1";
        return Err(refuse(at.key("recipient"), why));
    }
    if etcd.keep == 0 {
        return Err(refuse(at.key("keep"), "is 0: nothing would be kept; write 1 or more"));
    }
    let Some(server) = machines.iter().find(|m| m.role == Role::Nfs && !m.leaving) else {
        let why = "names a folder that no machine exports; add a machine of the role \"nfs\"";
        return Err(refuse(at.key("export"), why));
    };
    Ok(Some(files::Saved {
        cluster: cluster.to_owned(),
        recipient: etcd.recipient.clone(),
        server: server.address.to_string(),
        export: etcd.export.to_string(),
        schedule: etcd.schedule.to_string(),
        keep: etcd.keep,
    }))
}

/// The mode of kube-proxy for a data plane (docs.tigera.io: the nftables data plane wants kube-proxy in the same mode).
fn proxy_mode(dataplane: Option<Dataplane>) -> &'static str {
    match dataplane {
        Some(Dataplane::Nftables) => "nftables",
        Some(Dataplane::Iptables | Dataplane::Ebpf) | None => "iptables",
    }
}
