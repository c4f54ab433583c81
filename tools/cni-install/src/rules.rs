//! What settings go together: every refusal of `spec.cni`.

use cluster_doc::spec::{Cni, CniInstall, Dataplane, Encapsulation, Kubernetes, Vip};
use cluster_doc::{Cidr, LabelKey, LabelValue, Pointer, Refusals};
use serde::Serialize;

/// AS numbers that nobody can have: 0, AS_TRANS and the last ones (RFC 7607, RFC 6793, RFC 7300).
const NO_AS: [u32; 4] = [0, 23_456, 65_535, u32::MAX];

/// Which of a node's addresses Calico uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", content = "value", rename_all = "camelCase")]
pub enum Autodetect {
    /// The one that the kubelet registered.
    NodeIp,
    /// The first of an interface whose name fits.
    Interface(String),
    /// The first of an interface whose name does not fit.
    SkipInterface(String),
    /// The one from which an address is reached.
    CanReach(String),
    /// The one in a network.
    Cidr(String),
}

impl Autodetect {
    /// # Errors
    /// A sentence that says what would do.
    pub(crate) fn parse(text: &str) -> Result<Autodetect, String> {
        let fits = |value: &str| !value.is_empty() && !value.contains(char::is_whitespace);
        match text.split_once('=') {
            None if text == "node-ip" => Ok(Autodetect::NodeIp),
            Some(("interface", value)) if fits(value) => Ok(Autodetect::Interface(value.to_owned())),
            Some(("skip-interface", value)) if fits(value) => Ok(Autodetect::SkipInterface(value.to_owned())),
            Some(("can-reach", value)) if value.parse::<std::net::Ipv4Addr>().is_ok() => {
                Ok(Autodetect::CanReach(value.to_owned()))
            }
            Some(("cidr", value)) if value.parse::<Cidr>().is_ok() => Ok(Autodetect::Cidr(value.to_owned())),
            _ => Err(format!(
                "\"{text}\" says no address; write node-ip, interface=eth.*, skip-interface=docker.*, \
                 can-reach=10.0.0.1 or cidr=10.0.0.0/24"
            )),
        }
    }
}

/// Whether nodes exchange routes by BGP.
pub(crate) fn bgp(cni: &Cni) -> bool {
    let needed = matches!(
        cni.encapsulation,
        Encapsulation::Ipip | Encapsulation::IpipCrossSubnet | Encapsulation::None
    );
    needed || cni.bgp.is_some()
}

/// A label as `key=value`.
///
/// # Errors
/// A sentence that says what would do.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("\"{text}\" is no label; write for example environment=prod"))?;
    LabelKey::parse(key).map_err(|why| format!("\"{key}\" {why}"))?;
    LabelValue::parse(value).map_err(|why| format!("\"{value}\" {why}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// All that is wrong with the settings.
pub(crate) fn check(
    cni: &Cni,
    kubernetes: &Kubernetes,
    vip: Option<&Vip>,
    nodes: usize,
    wrong: &mut Refusals,
) {
    let at = |field: &str| Pointer::root().key("spec").key("cni").key(field);
    // 1280 is the least that IPv6 takes (RFC 8200); more than 9216 no common switch carries.
    if cni.mtu.is_some_and(|mtu| !(1280..=9216).contains(&mtu)) {
        let message = "is no size of a packet that networks carry; write 1280 to 9216, or leave it out";
        wrong.add(at("mtu"), message);
    }
    if let Err(why) = Autodetect::parse(&cni.autodetect) {
        wrong.add(at("autodetect"), why);
    }
    blocks(cni, kubernetes, nodes, wrong);
    if cni.dataplane == Dataplane::Ebpf {
        if cni.install == CniInstall::Manifest {
            let message =
                "ebpf needs the operator, which turns kube-proxy off; write \"install\": \"operator\"";
            wrong.add(at("dataplane"), message);
        }
        if matches!(cni.encapsulation, Encapsulation::Ipip | Encapsulation::IpipCrossSubnet) {
            let message = "IP-in-IP does not work with ebpf; write vxlan-cross-subnet, vxlan or none";
            wrong.add(at("encapsulation"), message);
        }
        if vip.is_none() {
            let message =
                "ebpf replaces kube-proxy, so that Calico must know the API's own address; write spec.vip";
            wrong.add(at("dataplane"), message);
        }
    }
    if let Some(bgp) = &cni.bgp {
        let here = at("bgp");
        if NO_AS.contains(&bgp.as_number) {
            wrong
                .add(here.key("asNumber"), format!("{} is no AS number that a node can have", bgp.as_number));
        }
        for (n, peer) in bgp.peers.iter().enumerate() {
            let here = here.key("peers").index(n);
            if NO_AS.contains(&peer.as_number) {
                wrong.add(here.key("asNumber"), format!("{} is no AS number of a router", peer.as_number));
            }
            if kubernetes.pod_cidr.contains(peer.address) || kubernetes.service_cidr.contains(peer.address) {
                wrong
                    .add(here.key("address"), format!("{} lies in the cluster's own networks", peer.address));
            }
            if bgp.peers[..n].iter().any(|other| other.address == peer.address) {
                wrong.add(here.key("address"), format!("{} is written twice", peer.address));
            }
        }
        if !bgp.mesh && bgp.peers.is_empty() {
            let message =
                "is false without peers: no node would learn of another's pods; add peers or leave it out";
            wrong.add(here.key("mesh"), message);
        }
    }
    if let Some(policies) = &cni.policies
        && let Err(why) = label(&policies.production)
    {
        wrong.add(at("policies").key("production"), why);
    }
}

/// Each node takes a block of addresses at least.
fn blocks(cni: &Cni, kubernetes: &Kubernetes, nodes: usize, wrong: &mut Refusals) {
    let prefix = u32::from(kubernetes.pod_cidr.prefix());
    if !(20..=32).contains(&cni.block_size) || cni.block_size < prefix {
        let at = Pointer::root().key("spec").key("cni").key("blockSize");
        let message = format!(
            "{} is no size of a block in {}; write {} to 32",
            cni.block_size,
            kubernetes.pod_cidr,
            prefix.max(20)
        );
        wrong.add(at, message);
        return;
    }
    let (count, size) = (1_u64 << (cni.block_size - prefix), 1_u64 << (32 - cni.block_size));
    if count < nodes as u64 {
        let message = format!(
            "{} holds {count} blocks of {size} addresses for {nodes} nodes; each takes one at least",
            kubernetes.pod_cidr
        );
        wrong.add(Pointer::root().key("spec").key("kubernetes").key("podCidr"), message);
    }
}
