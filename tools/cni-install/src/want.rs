//! What the operator wants: every refusal of input is here.

use addon::{Access, Addon, Artefact, Flags, Installer as _, Pin, Texts};
use cluster_doc::spec::Encapsulation;
use cluster_doc::{Document, Pointer, Refusals};
use serde::Serialize;
use stage::{Failure, Site};

use crate::Calico;
use crate::objects;

/// The release of Calico, with its operator v1.42.3.
pub(crate) const CALICO: &str = "v3.32.1";
/// The minor versions of Kubernetes that this release of Calico is tested with (docs.tigera.io, 3.32, requirements).
const KUBERNETES: std::ops::RangeInclusive<u16> = 34..=36;
/// Addresses a node takes at once are 2^(32-26).
pub(crate) const BLOCK: u8 = 26;

/// The operator's manifest, of the tag v3.32.1 of projectcalico/calico.
const PINS: [Pin; 1] = [Pin {
    name: "tigera-operator",
    url: "https://raw.githubusercontent.com/projectcalico/calico/v3.32.1/manifests/tigera-operator.yaml",
    sha256: "f18e073794207d372606bc3ea6f8fd73972f86d6828f4ba666dfe0d4aa8ab07f",
    size: 19660,
}];

/// What the operator v1.42.3 runs for our Installation.
const OPERANDS: [&str; 7] =
    ["cni", "csi", "kube-controllers", "node", "node-driver-registrar", "pod2daemon-flexvol", "typha"];

/// What the templates are filled with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The network of the pods.
    pub pod_cidr: String,
    /// Calico's word for how packets travel.
    pub encapsulation: &'static str,
    /// Calico's word for whether nodes exchange routes.
    pub bgp: &'static str,
    /// Addresses a node takes at once, as a prefix.
    pub block_size: u8,
    /// Bytes of a packet between pods.
    pub mtu: Option<u32>,
    /// The registry and path prefix that images come from, with a slash at the end.
    pub registry: Option<String>,
    /// The address of the API.
    pub api_host: Option<String>,
    /// The port of the API.
    pub api_port: u16,
}

/// What the operator wants.
#[derive(Debug)]
pub struct Want {
    /// How the cluster is reached.
    pub access: Access,
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
        if !self.pinned {
            return Err(Failure::precondition("cannot know the images of this operator")
                .because(format!("spec.artifacts takes it from {}", self.version))
                .hint("ask the operator itself: docker run --rm OPERATOR-IMAGE --print-images=list"));
        }
        Ok(OPERANDS.iter().map(|name| format!("quay.io/calico/{name}:{CALICO}")).collect())
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
    let access = Access::new(flags, doc, &spec, site);
    let artefacts = addon::artefacts(&PINS, spec.artifacts.as_ref());
    let pinned = artefacts.iter().all(|one| one.url == PINS[0].url);
    let mut wrong = Refusals::default();
    let at = |section: &str, field: &str| Pointer::root().key("spec").key(section).key(field);
    if pinned && !fits(kubernetes.version.minor()) {
        wrong.add(
            at("kubernetes", "version"),
            format!(
                "{} is not what Calico {CALICO} is for: it is for 1.{} to 1.{}; take one of these, or another Calico by \
                 spec.artifacts (tigera-operator)",
                kubernetes.version,
                KUBERNETES.start(),
                KUBERNETES.end()
            ),
        );
    }
    let blocks = 1_u64 << u32::from(BLOCK.saturating_sub(kubernetes.pod_cidr.prefix()));
    if blocks < access.nodes.len() as u64 {
        wrong.add(
            at("kubernetes", "podCidr"),
            format!(
                "{} holds {blocks} blocks of 64 addresses for {} nodes; each takes one at least",
                kubernetes.pod_cidr,
                access.nodes.len()
            ),
        );
    }
    // 1280 is the least that IPv6 takes (RFC 8200); more than 9216 no common switch carries.
    if cni.mtu.is_some_and(|mtu| !(1280..=9216).contains(&mtu)) {
        wrong.add(
            at("cni", "mtu"),
            "is no size of a packet that networks carry; write 1280 to 9216, or leave it out",
        );
    }
    if !wrong.is_empty() {
        return Err(doc.locate(wrong).into());
    }
    let (encapsulation, bgp) = match cni.encapsulation {
        Encapsulation::VxlanCrossSubnet => ("VXLANCrossSubnet", "Disabled"),
        Encapsulation::Vxlan => ("VXLAN", "Disabled"),
        Encapsulation::IpipCrossSubnet => ("IPIPCrossSubnet", "Enabled"),
        Encapsulation::Ipip => ("IPIP", "Enabled"),
        Encapsulation::None => ("None", "Enabled"),
    };
    let settings = Settings {
        pod_cidr: kubernetes.pod_cidr.to_string(),
        encapsulation,
        bgp,
        block_size: BLOCK,
        mtu: cni.mtu,
        registry: spec.registry.as_ref().map(|registry| format!("{}/", registry.trim_end_matches('/'))),
        api_host: spec.vip.as_ref().map(|vip| vip.address.to_string()),
        api_port: spec.vip.as_ref().map_or(6443, |vip| vip.ports.api.get()),
    };
    let version = match artefacts.first() {
        Some(own) if !pinned => own.url.clone(),
        _ => CALICO.to_owned(),
    };
    let addon = Addon::new(Calico::NAME);
    Ok(Want { access, settings, artefacts, version, pinned, addon, registry: spec.registry.clone() })
}

/// Whether this release of Calico is for that minor version of Kubernetes.
pub(crate) fn fits(minor: u16) -> bool {
    KUBERNETES.contains(&minor)
}
