//! The pod network.

use std::net::Ipv4Addr;

use crate::read::{choice, section};
use crate::types::Name;

choice! {
    /// Who makes the pod network.
    pub enum CniProvider {
        /// Calico.
        Calico = "calico",
    }
}

choice! {
    /// How Calico is installed.
    pub enum CniInstall {
        /// By the Tigera operator, which also upgrades it.
        Operator = "operator",
        /// From its publisher's manifest, without the operator.
        Manifest = "manifest",
    }
}

choice! {
    /// How packets between pods of different nodes travel.
    pub enum Encapsulation {
        /// In VXLAN between subnets, plain within one.
        VxlanCrossSubnet = "vxlan-cross-subnet",
        /// Always in VXLAN.
        Vxlan = "vxlan",
        /// In IP-in-IP between subnets, plain within one; needs BGP.
        IpipCrossSubnet = "ipip-cross-subnet",
        /// Always in IP-in-IP; needs BGP.
        Ipip = "ipip",
        /// Plain.
        None = "none",
    }
}

choice! {
    /// What in a node's kernel moves and filters packets.
    pub enum Dataplane {
        /// iptables.
        Iptables = "iptables",
        /// nftables; kube-proxy must use it as well.
        Nftables = "nftables",
        /// eBPF, in place of kube-proxy.
        Ebpf = "ebpf",
    }
}

section! {
    /// The pod network.
    pub struct Cni {
        /// Who makes it.
        provider: CniProvider = CniProvider::Calico,
        /// By the operator, or from the publisher's manifest.
        install: CniInstall = CniInstall::Operator,
        /// How packets travel between nodes.
        encapsulation: Encapsulation = Encapsulation::VxlanCrossSubnet,
        /// Bytes of a packet between pods; found by Calico unless said.
        mtu: Option<u32>,
        /// Which of a node's addresses it uses: node-ip, or interface=, skip-interface=, can-reach= or cidr= with a value.
        autodetect: String = "node-ip".to_owned(),
        /// The size of the blocks of addresses that nodes take, as a prefix length; it cannot be changed later.
        block_size: u32 = 26,
        /// What moves and filters packets.
        dataplane: Dataplane = Dataplane::Iptables,
        /// Encrypts what travels between nodes.
        wireguard: bool = false,
        /// Routes exchanged with routers; nodes exchange theirs without it where the encapsulation needs that.
        bgp: Option<Bgp>,
        /// Who may talk to whom unless a NetworkPolicy says more; everybody when it is left out.
        policies: Option<Policies>,
    }
}

section! {
    /// Routes exchanged with routers.
    pub struct Bgp {
        /// The nodes' AS number.
        as_number: u32 = 64512,
        /// True when each node peers with each other one.
        mesh: bool = true,
        /// The routers that each node peers with.
        peers: Vec<BgpPeer>,
    }
}

section! {
    /// A router that nodes peer with.
    pub struct BgpPeer {
        /// Its address.
        address: Ipv4Addr,
        /// Its AS number.
        as_number: u32,
    }
}

section! {
    /// Who may talk to whom unless a NetworkPolicy says more.
    pub struct Policies {
        /// The label of production's namespaces; no NetworkPolicy lets these and the others reach each other.
        production: String = "environment=prod".to_owned(),
        /// Namespaces that are left open, beside those of the cluster itself and of these tools.
        except: Vec<Name>,
    }
}
