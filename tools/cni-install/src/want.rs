//! What the operator wants: every refusal of input is here.

use addon::{Access, Addon, Artefact, Installer as _, Texts};
use cluster_doc::spec::{CniInstall, Dataplane, Encapsulation, Role, Spec};
use cluster_doc::{Document, Pointer, Refusals};
use fleet::Route;
use stage::{Failure, Site};

use crate::Calico;
use crate::args::Flags;
use crate::objects;
use crate::probe;
use crate::rules::{self, Autodetect};
use crate::settings::{Peer, Peering, Policies, Settings};
use crate::versions::{self, CALICO, OPERANDS};

/// Namespaces of the cluster itself and of these tools: no policy of ours rules them.
const OPEN: [&str; 10] = [
    "calico-apiserver",
    "calico-system",
    "cert-manager",
    "kube-node-lease",
    "kube-public",
    "kube-system",
    "monitoring",
    "nfs-provisioner",
    "tigera-operator",
    "traefik",
];

/// What the operator wants.
#[derive(Debug)]
pub struct Want {
    /// How the cluster is reached.
    pub access: Access,
    /// How the nodes are reached; none without `spec.ssh`.
    pub route: Option<Route>,
    /// Whether `check` has pods reach each other, and the image that they run.
    pub probe: Option<String>,
    /// The cluster's DNS domain.
    pub domain: String,
    /// What the templates are filled with.
    pub settings: Settings,
    /// What is fetched.
    pub artefacts: Vec<Artefact>,
    /// The release of Calico, or where the operator's manifest comes from instead.
    pub version: String,
    /// True when it is known which versions of Kubernetes this Calico is for.
    pub pinned: bool,
    /// The objects; complete once the artefacts are there.
    pub addon: Addon,
    registry: Option<String>,
}

impl Want {
    /// Makes the objects, now that the artefacts are known.
    ///
    /// # Errors
    /// An artefact that holds no manifests.
    pub fn complete(&mut self, texts: &Texts) -> Result<(), Failure> {
        self.addon = objects::addon(&self.settings, texts, self.registry.as_ref())?;
        Ok(())
    }

    /// The images that the operator chooses for what it runs (its flag `--print-images=list`, without those that need
    /// objects which are not made here: goldmane, whisker, the API server).
    ///
    /// # Errors
    /// Exit 4 for another operator than the pinned one.
    pub fn operands(&self) -> Result<Vec<String>, Failure> {
        // The one of `check --probe` goes along, or a site without internet could not probe.
        let mut all = vec![probe::IMAGE.to_owned()];
        if !self.settings.operator {
            return Ok(all);
        }
        if !self.pinned {
            return Err(Failure::precondition("cannot know the images of this operator")
                .because(format!("spec.artifacts takes it from {}", self.version))
                .hint("ask the operator itself: docker run --rm OPERATOR-IMAGE --print-images=list"));
        }
        all.extend(OPERANDS.iter().map(|name| format!("quay.io/calico/{name}:{CALICO}")));
        Ok(all)
    }
}

impl addon::Wanted for Want {
    fn access(&self) -> &Access {
        &self.access
    }

    fn addon(&self) -> &Addon {
        &self.addon
    }

    fn artefacts(&self) -> &[Artefact] {
        &self.artefacts
    }
}

pub(crate) fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(Calico::READS)?;
    let (kubernetes, cni) = (spec.kubernetes()?, spec.cni()?);
    let access = Access::new(&flags.addon, doc, &spec, site);
    let pin = match (cni.install, rules::bgp(cni)) {
        (CniInstall::Operator, _) => versions::OPERATOR,
        (CniInstall::Manifest, false) => versions::VXLAN,
        (CniInstall::Manifest, true) => versions::BGP,
    };
    let artefacts = addon::artefacts(&[pin], spec.artifacts.as_ref());
    // By its digest: a mirror of the same file is the same Calico.
    let pinned = artefacts.iter().all(|one| one.sha256.eq_ignore_ascii_case(pin.sha256));
    let mut wrong = Refusals::default();
    if let Some(why) = versions::unfit(kubernetes.version.minor()).filter(|_| pinned) {
        let at = Pointer::root().key("spec").key("kubernetes").key("version");
        let message = format!(
            "{} does not fit: {why}; or take that Calico by spec.artifacts ({})",
            kubernetes.version, pin.name
        );
        wrong.add(at, message);
    }
    rules::check(cni, kubernetes, spec.vip.as_ref(), access.nodes.len(), &mut wrong);
    let autodetect = Autodetect::parse(&cni.autodetect);
    let (Ok(autodetect), true) = (autodetect, wrong.is_empty()) else {
        return Err(doc.locate(wrong).into());
    };
    let machines = doc.machines(&spec);
    let control_planes =
        machines.iter().filter(|m| m.role == Role::ControlPlane && !m.leaving).map(|m| m.address.to_string());
    let settings = Settings {
        operator: cni.install == CniInstall::Operator,
        pod_cidr: kubernetes.pod_cidr.to_string(),
        encapsulation: match cni.encapsulation {
            Encapsulation::VxlanCrossSubnet => "VXLANCrossSubnet",
            Encapsulation::Vxlan => "VXLAN",
            Encapsulation::IpipCrossSubnet => "IPIPCrossSubnet",
            Encapsulation::Ipip => "IPIP",
            Encapsulation::None => "None",
        },
        bgp: rules::bgp(cni),
        peering: cni.bgp.as_ref().map(|bgp| Peering {
            as_number: bgp.as_number,
            mesh: bgp.mesh,
            peers: bgp
                .peers
                .iter()
                .map(|peer| Peer { address: peer.address.to_string(), as_number: peer.as_number })
                .collect(),
        }),
        block_size: cni.block_size,
        mtu: cni.mtu,
        autodetect,
        dataplane: match cni.dataplane {
            Dataplane::Iptables => "Iptables",
            Dataplane::Nftables => "Nftables",
            Dataplane::Ebpf => "BPF",
        },
        wireguard: cni.wireguard,
        registry: spec.registry.as_ref().map(|registry| format!("{}/", registry.trim_end_matches('/'))),
        endpoint_namespace: match cni.install {
            CniInstall::Operator => "tigera-operator",
            CniInstall::Manifest => "kube-system",
        },
        api_host: spec.vip.as_ref().map(|vip| vip.address.to_string()),
        api_port: spec.vip.as_ref().map_or(6443, |vip| vip.ports.api.get()),
        policies: cni.policies.as_ref().map(|wanted| policies(wanted, &spec, control_planes.collect())),
    };
    let version = match artefacts.first() {
        Some(own) if !pinned => own.url.clone(),
        _ => CALICO.to_owned(),
    };
    let nodes = machines.iter().filter(|m| matches!(m.role, Role::ControlPlane | Role::Worker));
    let route = spec.ssh.as_ref().map(|ssh| Route::new(nodes, ssh, site));
    let addon = Addon::new(Calico::NAME);
    let image = match &spec.registry {
        Some(registry) => kube_apply::in_registry(probe::IMAGE, registry),
        None => probe::IMAGE.to_owned(),
    };
    let probe = flags.probe.then_some(image);
    let domain = kubernetes.dns_domain.to_string();
    Ok(Want {
        access,
        route,
        probe,
        domain,
        settings,
        artefacts,
        version,
        pinned,
        addon,
        registry: spec.registry.clone(),
    })
}

fn policies(wanted: &cluster_doc::spec::Policies, spec: &Spec, control_planes: Vec<String>) -> Policies {
    let (key, value) = rules::label(&wanted.production).unwrap_or_default();
    let mut open: Vec<String> = OPEN.map(str::to_owned).to_vec();
    open.extend(wanted.except.iter().map(ToString::to_string));
    open.sort();
    open.dedup();
    let open: Vec<String> = open.iter().map(|name| format!("\"{name}\"")).collect();
    let is_ruled = format!("kubernetes.io/metadata.name not in {{{}}}", open.join(", "));
    let mut nets: Vec<String> = control_planes;
    nets.extend(spec.vip.as_ref().map(|vip| vip.address.to_string()));
    nets.sort();
    nets.dedup();
    let mut ports: Vec<u16> = spec.kubernetes.iter().map(|kubernetes| kubernetes.api_port.get()).collect();
    ports.extend(spec.vip.as_ref().map(|vip| vip.ports.api.get()));
    ports.sort_unstable();
    ports.dedup();
    Policies {
        is_production: format!("{is_ruled} && {key} == \"{value}\""),
        is_rest: format!("{is_ruled} && (!has({key}) || {key} != \"{value}\")"),
        is_ruled,
        api_nets: nets.iter().map(|address| format!("{address}/32")).collect(),
        api_ports: ports,
    }
}
