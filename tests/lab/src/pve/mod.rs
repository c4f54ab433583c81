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
//! ```

mod auth;
mod backup;
mod boot;
mod config;
mod dispatch;
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

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use config::{
    Acl, Generation, ImageConfig, NodeConfig, ProxmoxConfig, StorageConfig, StorageKind, TokenConfig,
    UserConfig,
};

use self::hub::Hub;
pub use self::hub::RawRequest;
use self::state::{Guest, Kind, Node, State, Volume};
use crate::world::{Machines, Shared};

/// A guest, for a person's and a test's eyes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestView {
    /// Its id.
    pub vmid: u32,
    /// Its name.
    pub name: String,
    /// The node that owns it.
    pub node: String,
    /// True while it runs.
    pub running: bool,
    /// Its tags.
    pub tags: Vec<String>,
    /// The pool that it is in.
    pub pool: Option<String>,
    /// True for a template.
    pub template: bool,
    /// Its options as they are stored.
    pub config: BTreeMap<String, String>,
}

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

    /// Switches a node off: its API and its connections end, its tasks break off, its guests go dark. It
    /// cannot be reached through the others (595), and without a majority they refuse writes.
    pub fn node_off(&self, node: &str) {
        if let Some(server) = self.servers().get(node) {
            server.stop.cancel();
        }
        let (tasks, guests) = {
            let mut state = self.hub.state();
            if let Some(node) = state.nodes.get_mut(node) {
                node.online = false;
            }
            let tasks: Vec<String> = state
                .tasks
                .values()
                .filter(|t| t.node == node && t.exit.is_none())
                .map(|t| t.upid.clone())
                .collect();
            let on = state.guests.values_mut().filter(|g| g.node == node && g.running.is_some());
            let dark = on.map(|guest| {
                guest.stale = "running";
                guest.changed = Instant::now();
                guest.running = None;
                guest.vmid
            });
            (tasks, dark.collect::<Vec<u32>>())
        };
        for upid in tasks {
            self.hub.kill(&upid, "unexpected status");
        }
        for vmid in guests {
            self.hub.machines.power_off(vmid);
        }
    }

    /// Switches a node on again: its API answers, and its guests with `onboot` start.
    ///
    /// # Errors
    /// Its address cannot be bound.
    pub fn node_on(&self, node: &str) -> io::Result<()> {
        self.listen(node)?;
        let guests: Vec<(u32, Kind)> = {
            let mut state = self.hub.state();
            if let Some(node) = state.nodes.get_mut(node) {
                node.online = true;
                node.since = Instant::now();
            }
            let here = state.guests.values().filter(|g| g.node == node && g.running.is_none());
            let wanted = here.filter(|g| g.on("onboot") && !g.template());
            wanted.map(|g| (g.vmid, g.kind)).collect()
        };
        for (vmid, kind) in guests {
            let (hub, node) = (self.hub.clone(), node.to_owned());
            self.hub.runtime.spawn(async move {
                // A machine that is locked stays off, as on a real node; its state shows it.
                let started = match kind {
                    Kind::Qemu => qemu::power::boot(&hub, &node, vmid).await,
                    Kind::Lxc => lxc::power::switch_on(&hub, &node, vmid).await,
                };
                if let Err(why) = started {
                    tracing::debug!(vmid, why, "not started with its node");
                }
            });
        }
        Ok(())
    }

    /// True while a node is on.
    pub fn node_is_on(&self, node: &str) -> bool {
        self.hub.state().nodes.get(node).is_some_and(|n| n.online)
    }

    /// All guests, in the order of their ids.
    pub fn view(&self) -> Vec<GuestView> {
        let state = self.hub.state();
        let one = |g: &Guest| GuestView {
            vmid: g.vmid,
            name: g.name(),
            node: g.node.clone(),
            running: g.running.is_some(),
            tags: g.config.get("tags").map(|t| t.split(';').map(str::to_owned).collect()).unwrap_or_default(),
            pool: g.pool.clone(),
            template: g.template(),
            config: g.config.clone(),
        };
        state.guests.values().map(one).collect()
    }

    /// The resource pools by name, with their comments.
    pub fn pools(&self) -> BTreeMap<String, String> {
        let state = self.hub.state();
        let one =
            |(name, pool): (&String, &state::Pool)| (name.clone(), pool.comment.clone().unwrap_or_default());
        state.pools.iter().map(one).collect()
    }

    /// The backup jobs by id.
    pub fn jobs(&self) -> BTreeMap<String, serde_json::Value> {
        let state = self.hub.state();
        state.jobs.iter().map(|(id, job)| (id.clone(), serde_json::Value::Object(job.clone()))).collect()
    }

    /// Somebody migrates a guest, running or not: it is on another node at once, with its volumes on local storages.
    pub fn moved(&self, vmid: u32, node: &str) {
        let mut state = self.hub.state();
        let Some(guest) = state.guests.get_mut(&vmid) else { return };
        let from = std::mem::replace(&mut guest.node, node.to_owned());
        guest.changed = Instant::now();
        let here = |(place, _): &&(String, String), v: &Volume| *place == from && v.vmid == Some(vmid);
        let keys: Vec<_> = state.volumes.iter().filter(|(k, v)| here(k, v)).map(|(k, _)| k.clone()).collect();
        for key in keys {
            if let Some(volume) = state.volumes.remove(&key) {
                state.volumes.insert((node.to_owned(), key.1), volume);
            }
        }
    }

    /// Whether somebody could migrate the guest now: nothing has it in hand, and no local image is in its drives
    /// (`can't migrate local cdrom`, qemu-server, QemuMigrate.pm).
    pub fn can_move(&self, vmid: u32) -> bool {
        let state = self.hub.state();
        let Some(guest) = state.guests.get(&vmid) else { return false };
        let busy = state.tasks.values().any(|t| t.exit.is_none() && t.id == vmid.to_string());
        !busy && !guest.config.contains_key("lock") && !guest.config.values().any(|v| v.contains(":iso/"))
    }

    /// Cuts the nodes off from each other, or joins them again: without quorum nothing can be changed.
    pub fn cut_off(&self, cut: bool) {
        self.hub.state().cut = cut;
    }

    /// Somebody puts a machine under the care of the HA manager.
    pub fn put_under_ha(&self, vmid: u32) {
        let sid = format!("vm:{vmid}");
        let resource = serde_json::json!({ "sid": sid, "type": "vm", "state": "started" });
        if let serde_json::Value::Object(resource) = resource {
            self.hub.state().ha.resources.insert(sid, resource);
        }
    }

    /// Keeps the requests that come from now on as they come; gives those that were kept so far.
    pub fn keep_requests(&self) -> Vec<RawRequest> {
        self.hub.raw().replace(Vec::new()).unwrap_or_default()
    }

    /// Somebody sets an option of a guest, or takes it away.
    pub fn set_by_root(&self, vmid: u32, option: &str, value: Option<&str>) {
        if let Some(guest) = self.hub.state().guests.get_mut(&vmid) {
            match value {
                Some(value) => drop(guest.config.insert(option.to_owned(), value.to_owned())),
                None => drop(guest.config.remove(option)),
            }
        }
    }

    /// Somebody takes a disk out of its drive: it becomes an unused one.
    pub fn taken_out(&self, vmid: u32, slot: &str) {
        let mut state = self.hub.state();
        let Some(guest) = state.guests.get_mut(&vmid) else { return };
        if let Some(drive) = guest.config.remove(slot) {
            let volume = drive.split(',').next().unwrap_or_default().to_owned();
            guest.config.insert("unused0".into(), volume);
        }
    }

    /// A volume that bears a guest's id and is in no configuration; gives its name.
    pub fn leave_volume(&self, node: &str, storage: &str, vmid: u32) -> String {
        let volid = format!("{storage}:vm-{vmid}-disk-90");
        let volume = Volume { vmid: Some(vmid), ..Volume::new(&volid, storage, "images", "raw", 1 << 30) };
        self.hub.state().put_volume(node, volume);
        volid
    }

    /// Somebody pulls a machine's plug.
    pub async fn switched_off(&self, vmid: u32) {
        let Some(node) = self.hub.state().guests.get(&vmid).map(|g| g.node.clone()) else { return };
        if let Err(why) = qemu::power::off(&self.hub, &node, vmid).await {
            tracing::warn!(vmid, why, "not switched off");
        }
    }

    /// Root unlocks a guest and destroys it by hand, with its volumes.
    pub fn destroyed_by_root(&self, vmid: u32) {
        let gone = {
            let mut state = self.hub.state();
            let Some(guest) = state.guests.remove(&vmid) else { return };
            qemu::drives::free_all(&mut state, &guest.node, vmid);
            guest.running.is_some()
        };
        if gone {
            self.hub.machines.power_off(vmid);
        }
        self.hub.machines.erased(vmid);
    }

    /// Somebody, or the HA manager, switches a machine off and on again.
    pub async fn restarted(&self, vmid: u32) {
        let Some(node) = self.hub.state().guests.get(&vmid).map(|g| g.node.clone()) else { return };
        for done in
            [qemu::power::off(&self.hub, &node, vmid).await, qemu::power::boot(&self.hub, &node, vmid).await]
        {
            if let Err(why) = done {
                tracing::warn!(vmid, why, "not restarted");
            }
        }
    }

    /// The volumes on a node's storages and on the shared ones, by id.
    pub fn volumes(&self, node: &str) -> Vec<String> {
        let state = self.hub.state();
        let here = state.volumes.keys().filter(|(place, _)| place.is_empty() || place == node);
        here.map(|(_, volid)| volid.clone()).collect()
    }

    /// Adds a stopped machine of somebody else, in no pool.
    pub fn add_foreign(&self, vmid: u32, name: &str, node: &str) {
        let mut state = self.hub.state();
        let generation = state.count();
        let mut guest = Guest::new(vmid, Kind::Qemu, node, generation);
        guest.stale = "stopped";
        for (option, value) in [("name", name), ("cores", "2"), ("memory", "2048")] {
            guest.config.insert(option.into(), value.into());
        }
        state.guests.insert(vmid, guest);
    }

    /// The HA manager's entries: resources, rules and groups by name.
    pub fn ha(&self) -> BTreeMap<String, BTreeMap<String, serde_json::Value>> {
        let state = self.hub.state();
        let all =
            [("resources", &state.ha.resources), ("rules", &state.ha.rules), ("groups", &state.ha.groups)];
        let one = |map: &BTreeMap<String, serde_json::Map<String, serde_json::Value>>| {
            map.iter().map(|(k, v)| (k.clone(), serde_json::Value::Object(v.clone()))).collect()
        };
        all.into_iter().map(|(name, map)| (name.to_owned(), one(map))).collect()
    }

    /// The HA manager gives a resource up, such as `vm:3000`.
    pub fn ha_error(&self, sid: &str) {
        self.hub.state().ha.errors.insert(sid.to_owned());
    }

    /// Somebody puts a guest under the HA manager's care, such as `vm:3000`.
    pub fn ha_foreign(&self, sid: &str) {
        let mut resource = serde_json::Map::new();
        resource.insert("sid".into(), sid.into());
        resource.insert("type".into(), sid.split(':').next().unwrap_or_default().into());
        resource.insert("state".into(), "started".into());
        self.hub.state().ha.resources.insert(sid.to_owned(), resource);
    }

    /// Adds the archive of a container template to a storage.
    pub fn add_archive(&self, storage: &str, file: &str, node: &str) {
        let volid = format!("{storage}:vztmpl/{file}");
        let volume = Volume::new(&volid, storage, "vztmpl", "tzst", 120 << 20);
        self.hub.state().put_volume(node, volume);
    }

    /// Adds a template of a cloud image with an agent, in the pool `templates` where that exists. Its disk
    /// has 3 GiB; a cloud-init drive is at `ide2`.
    pub fn add_template(&self, vmid: u32, name: &str, node: &str, storage: &str) {
        let mut state = self.hub.state();
        let generation = state.count();
        let mac = state.mac();
        let bridge = self.hub.config.bridges.first().cloned().unwrap_or_default();
        let files = state.storages.get(storage).is_some_and(|s| s.kind.files());
        let (folder, end) = if files { (format!("{vmid}/"), ".qcow2") } else { (String::new(), "") };
        let disk = format!("{storage}:{folder}base-{vmid}-disk-0{end}");
        let seed = format!("{storage}:{folder}vm-{vmid}-cloudinit{end}");
        for (volid, size) in [(&disk, 3u64 << 30), (&seed, 4 << 20)] {
            let format = if files { "qcow2" } else { "raw" };
            let volume = Volume { vmid: Some(vmid), ..Volume::new(volid, storage, "images", format, size) };
            state.put_volume(node, volume);
        }
        let mut guest = Guest::new(vmid, Kind::Qemu, node, generation);
        guest.stale = "stopped";
        guest.pool = state.pools.contains_key("templates").then(|| "templates".to_owned());
        let options = [
            ("name", name.to_owned()),
            ("template", "1".into()),
            ("agent", "enabled=1".into()),
            ("boot", "order=scsi0".into()),
            ("cores", "1".into()),
            ("memory", "1024".into()),
            ("ostype", "l26".into()),
            ("scsihw", "virtio-scsi-single".into()),
            ("scsi0", format!("{disk},discard=on,iothread=1,size=3G,ssd=1")),
            ("ide2", format!("{seed},media=cdrom,size=4M")),
            ("net0", format!("virtio={mac},bridge={bridge}")),
            ("serial0", "socket".into()),
            ("vga", "serial0".into()),
        ];
        guest.config.extend(options.map(|(option, value)| (option.to_owned(), value)));
        state.guests.insert(vmid, guest);
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
