//! The network, the shared address, SSH and the load balancers.

use std::net::Ipv4Addr;

use crate::read::{choice, section};
use crate::spec::Role;
use crate::types::{BridgeName, Cidr, DnsName, FilePath, Labels, Name, Port, RouterId, UserName};

section! {
    /// The network of all machines.
    pub struct Network {
        /// The network, such as 10.30.0.0/24.
        cidr: Cidr,
        /// The way out of it.
        gateway: Option<Ipv4Addr>,
        /// Name servers, in order.
        nameservers: Vec<Ipv4Addr>,
        /// The domain that short names are looked up in.
        search_domain: Option<DnsName>,
    }
}

section! {
    /// The address that the load balancers share.
    pub struct Vip {
        /// The address, in the machines' network and in no pool.
        address: Ipv4Addr,
        /// The VRRP virtual router id, unique on the segment.
        router_id: RouterId,
        /// The interface that carries it; the one with the machine's own address unless said.
        interface: Option<BridgeName>,
        /// Milliseconds between two VRRP adverts.
        advert_interval_ms: u32 = 200,
        /// The ports that it serves.
        ports: VipPorts = VipPorts::default(),
    }
}

section! {
    /// Ports on the shared address.
    pub struct VipPorts {
        /// HTTP.
        http: Port = port(80),
        /// HTTPS.
        https: Port = port(443),
        /// The Kubernetes API.
        api: Port = port(6443),
    }
}

impl Default for VipPorts {
    fn default() -> Self {
        VipPorts { http: port(80), https: port(443), api: port(6443) }
    }
}

/// A port known to be in range.
pub(crate) fn port(number: u16) -> Port {
    Port::new(number.max(1)).unwrap_or(Port::MIN)
}

section! {
    /// How the machines are reached.
    pub struct Ssh {
        /// The account; it may use sudo without a password.
        user: UserName,
        /// The private key; the agent at SSH_AUTH_SOCK is asked as well.
        identity_file: Option<FilePath>,
        /// The machines' SSH port.
        port: Port = port(22),
        /// Public keys that new machines let in.
        authorized_keys: Vec<String>,
        /// A machine that connections go through.
        jump: Option<Jump>,
        /// Where keys accepted with --accept-new-host-keys are recorded.
        known_hosts_file: Option<FilePath>,
    }
}

section! {
    /// A machine that connections go through.
    pub struct Jump {
        /// Its name or address.
        host: String,
        /// Its port.
        port: Port = port(22),
        /// The account there.
        user: UserName,
        /// The private key for it; that of the machines unless said.
        identity_file: Option<FilePath>,
        /// Its SSH host key, such as: ssh-ed25519 AAAA...
        host_key: Option<String>,
        /// A known_hosts file that has its key.
        known_hosts_file: Option<FilePath>,
    }
}

choice! {
    /// What the load balancers do with TLS on the shared address.
    pub enum BalanceMode {
        /// They pass it through to the ingress (L4).
        Passthrough = "passthrough",
        /// They terminate it (L7).
        Terminate = "terminate",
    }
}

choice! {
    /// What the load balancers understand of a listener's traffic.
    pub enum ListenerMode {
        /// Bytes.
        Tcp = "tcp",
        /// HTTP: the client's address is told in X-Forwarded-For.
        Http = "http",
    }
}

section! {
    /// A port of the operator's own on the shared address.
    pub struct Listener {
        /// Its name.
        name: Name,
        /// What is understood of its traffic.
        mode: ListenerMode = ListenerMode::Tcp,
        /// The port on the shared address.
        port: Port,
        /// The port on the machines; the same unless said.
        target_port: Option<Port>,
        /// Machines of this role serve it.
        role: Option<Role>,
        /// Machines that have all these labels serve it.
        labels: Labels,
        /// The path that a machine has to answer with a 200; a connection is enough unless said.
        check_path: Option<String>,
    }
}

section! {
    /// Vault behind the shared address.
    pub struct VaultListener {
        /// The port on the shared address.
        port: Port = port(8200),
        /// The servers' addresses; the active one gets the connections.
        servers: Vec<Ipv4Addr>,
        /// The port of the servers.
        server_port: Port = self::port(8200),
        /// The authority of the servers' certificates (PEM), which health checks then verify.
        ca_file: Option<FilePath>,
        /// The name that every server's certificate has; without it any name that the authority signed will do.
        server_name: Option<DnsName>,
    }
}

section! {
    /// HAProxy on the load balancers.
    pub struct LoadBalancer {
        /// What happens to TLS.
        mode: BalanceMode = BalanceMode::Passthrough,
        /// Port of the statistics page and the metrics, on each machine's own address.
        stats_port: Port = port(8404),
        /// True sends the PROXY protocol (version 2) to the ingress.
        proxy_protocol: bool = false,
        /// Certificate files or folders (PEM, key and chain in one file), for terminate.
        certificates: Vec<FilePath>,
        /// Seconds for which browsers are to insist on HTTPS (HSTS), for terminate; 0 tells them nothing.
        hsts_seconds: u32 = 0,
        /// More ports on the shared address.
        listeners: Vec<Listener>,
        /// Vault behind the shared address, for those who know one URL only.
        vault: Option<VaultListener>,
    }
}

impl Default for LoadBalancer {
    fn default() -> Self {
        LoadBalancer {
            mode: BalanceMode::Passthrough,
            stats_port: port(8404),
            proxy_protocol: false,
            certificates: Vec::new(),
            hsts_seconds: 0,
            listeners: Vec::new(),
            vault: None,
        }
    }
}
