//! What the templates are filled with.

use serde::Serialize;

use crate::rules::Autodetect;

/// All that Calico is told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// True when the Tigera operator installs Calico.
    pub operator: bool,
    /// The network of the pods.
    pub pod_cidr: String,
    /// Calico's word for how packets travel.
    pub encapsulation: &'static str,
    /// Whether nodes exchange routes.
    pub bgp: bool,
    /// AS numbers and routers, where the document has them.
    pub peering: Option<Peering>,
    /// Addresses a node takes at once, as a prefix.
    pub block_size: u32,
    /// Bytes of a packet between pods.
    pub mtu: Option<u32>,
    /// Which of a node's addresses is used.
    pub autodetect: Autodetect,
    /// Calico's word for what moves packets.
    pub dataplane: &'static str,
    /// Whether what travels between nodes is encrypted.
    pub wireguard: bool,
    /// The registry and path prefix that images come from, with a slash at the end.
    pub registry: Option<String>,
    /// The namespace of the ConfigMap with the API's address.
    pub endpoint_namespace: &'static str,
    /// The address of the API.
    pub api_host: Option<String>,
    /// The port of the API.
    pub api_port: u16,
    /// Who may talk to whom.
    pub policies: Option<Policies>,
}

/// AS numbers and routers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peering {
    /// The nodes' AS number.
    pub as_number: u32,
    /// Whether each node peers with each other one.
    pub mesh: bool,
    /// The routers.
    pub peers: Vec<Peer>,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Peer {
    /// Its address.
    pub address: String,
    /// Its AS number.
    pub as_number: u32,
}

/// Who may talk to whom: selectors in Calico's language, and where the API is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Policies {
    /// Fits production's namespaces.
    pub is_production: String,
    /// Fits the namespaces that are ruled and not production's.
    pub is_rest: String,
    /// Fits all namespaces that are ruled.
    pub is_ruled: String,
    /// The API's addresses, as networks.
    pub api_nets: Vec<String>,
    /// The API's ports.
    pub api_ports: Vec<u16>,
}
