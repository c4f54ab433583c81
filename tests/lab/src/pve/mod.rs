//! The Proxmox VE window: a cluster's REST API on real TLS sockets, one for each node.
//!
//! It knows the requests in [`schema`] and answers them as Proxmox VE 8.4 and 9.1 do: the checks in their
//! order, their texts, tasks with exit statuses, locks with their time-outs. It shares no code with the
//! client that it tests, and plays out no decisions of the HA manager. A request that it does not know
//! answers 501 and is kept in the journal as unknown.
//!
//! ```text
//! server.rs     HTTP as pveproxy speaks it, faults, the journal
//! dispatch.rs   the checks in order, and which handler takes what
//! hub.rs        what all share: the state, the locks, the door to the machines
//! events.rs     nodes that fail and return, other people at work
//! view.rs       what there is, for a person and a test
//! ```

mod auth;
mod backup;
mod boot;
mod config;
mod dispatch;
mod events;
mod form;
mod ha;
mod hub;
mod locks;
mod lxc;
mod nodes;
mod pools;
mod qemu;
mod reply;
pub mod schema;
mod seed;
mod server;
mod site;
mod state;
mod storage;
mod tasks;
mod tls;
mod view;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use config::{
    Acl, Generation, ImageConfig, NodeConfig, ProxmoxConfig, StorageConfig, StorageKind, TokenConfig,
    UserConfig,
};

pub use self::hub::RawRequest;
pub use self::view::GuestView;

use self::hub::Hub;
use self::state::{Node, State};
use crate::world::{Machines, Shared};

struct Server {
    address: Ipv4Addr,
    tls: TlsAcceptor,
    stop: CancellationToken,
}

/// A running Proxmox cluster.
pub struct Proxmox {
    hub: Arc<Hub>,
    servers: Mutex<BTreeMap<String, Server>>,
    ca_pem: String,
}

impl Proxmox {
    /// Starts all nodes, within a Tokio runtime. It writes `pve-ca.pem` and, for the first token,
    /// `pve-token` (mode 0600) to the lab's directory.
    ///
    /// # Errors
    /// No runtime, an address in use, a directory that cannot be written.
    pub fn start(world: Shared, machines: Arc<dyn Machines>, config: ProxmoxConfig) -> io::Result<Proxmox> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let schema = schema::Schema::shared(config.generation).map_err(io::Error::other)?;
        let authority = tls::Authority::new(&config.cluster).map_err(io::Error::other)?;
        let mut state = State::new(&config);
        let mut servers = BTreeMap::new();
        for node in &config.nodes {
            let address = world.net.host(node.host);
            let leaf = authority.leaf(&node.name, &config.domain, address).map_err(io::Error::other)?;
            let known = Node {
                config: node.clone(),
                online: true,
                address: address.to_string(),
                fingerprint: leaf.fingerprint,
                since: Instant::now(),
            };
            state.nodes.insert(node.name.clone(), known);
            let server = Server { address, tls: TlsAcceptor::from(leaf.tls), stop: CancellationToken::new() };
            servers.insert(node.name.clone(), server);
        }
        std::fs::create_dir_all(&world.dir)?;
        std::fs::write(world.dir.join("pve-ca.pem"), authority.pem())?;
        let token = config.users.iter().flat_map(|u| u.tokens.iter().map(move |t| (u, t))).next();
        if let Some((user, token)) = token {
            secret(&world.dir.join("pve-token"), &format!("{}!{}={}\n", user.id, token.id, token.secret))?;
        }
        let hub = Arc::new(Hub::new(world, machines, config, schema, runtime, state));
        let proxmox = Proxmox { hub, servers: Mutex::new(servers), ca_pem: authority.pem().to_owned() };
        for node in proxmox.nodes() {
            proxmox.listen(&node)?;
        }
        Ok(proxmox)
    }

    fn listen(&self, node: &str) -> io::Result<()> {
        let mut servers = self.servers();
        let server = servers.get_mut(node).ok_or_else(|| io::Error::other(format!("no node {node}")))?;
        let socket = std::net::TcpListener::bind((server.address, self.hub.config.port))?;
        socket.set_nonblocking(true)?;
        let _runtime = self.hub.runtime.enter();
        let socket = TcpListener::from_std(socket)?;
        server.stop = CancellationToken::new();
        let (hub, tls, stop) = (self.hub.clone(), server.tls.clone(), server.stop.clone());
        self.hub.runtime.spawn(server::serve(hub, node.to_owned(), socket, tls, stop));
        Ok(())
    }

    fn servers(&self) -> MutexGuard<'_, BTreeMap<String, Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's CA certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Where the CA certificate is.
    pub fn ca_file(&self) -> PathBuf {
        self.hub.world.dir.join("pve-ca.pem")
    }

    /// Where the first token is, as `user@realm!name=secret`.
    pub fn token_file(&self) -> PathBuf {
        self.hub.world.dir.join("pve-token")
    }

    /// The first token, as `user@realm!name=secret`.
    pub fn token(&self) -> Option<String> {
        let users = self.hub.config.users.iter();
        let first = users.flat_map(|u| u.tokens.iter().map(move |t| (u, t))).next();
        first.map(|(u, t)| format!("{}!{}={}", u.id, t.id, t.secret))
    }

    /// The SHA-256 fingerprint of a node's certificate.
    pub fn fingerprint(&self, node: &str) -> Option<String> {
        self.hub.state().nodes.get(node).map(|n| n.fingerprint.clone())
    }

    /// A node's base address, such as `https://127.30.0.201:8006`.
    pub fn url(&self, node: &str) -> Option<String> {
        let port = self.hub.config.port;
        self.hub.state().nodes.get(node).map(|n| format!("https://{}:{port}", n.address))
    }

    /// The nodes' names.
    pub fn nodes(&self) -> Vec<String> {
        self.hub.state().nodes.keys().cloned().collect()
    }

    /// Keeps the requests that come from now on as they come; gives those that were kept so far.
    pub fn keep_requests(&self) -> Vec<RawRequest> {
        self.hub.raw().replace(Vec::new()).unwrap_or_default()
    }
}

impl Drop for Proxmox {
    fn drop(&mut self) {
        for server in self.servers().values() {
            server.stop.cancel();
        }
    }
}

fn secret(path: &std::path::Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
