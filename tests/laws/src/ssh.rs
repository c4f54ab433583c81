//! A lab of SSH machines alone, for tools that need neither Proxmox nor Kubernetes.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lab::hosts::Hosts;
use lab::hosts::packages::CATALOGUE;
use lab::kube::Kube;
use lab::world::{Boot, World};
use lab::{Clock, Faults, Journal, Subnet};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use serde_json::{Value, json};

use crate::Case;

/// The port of the machines' SSH servers.
pub const PORT: u16 = 2222;
/// Folders whose files belong to what a run leaves.
const FOLDERS: [&str; 4] = ["/etc", "/usr/libexec", "/usr/local", "/srv"];
/// Files that differ from machine to machine by nature.
const OWN: [&str; 2] = ["/etc/machine-id", "/etc/ssh/"];
const UNITS: [&str; 5] = ["haproxy", "keepalived", "nfs-server", "containerd", "kubelet"];

/// Machines that let the user `kubeline` in with the key `id`.
pub struct Site {
    /// The machines.
    pub hosts: Hosts,
    /// Clock, journal, faults, network.
    pub world: Arc<World>,
    /// The operator's folder: the tool's working directory, with the private key in it.
    pub dir: PathBuf,
    key: PrivateKey,
    _dir: tempfile::TempDir,
}

impl Site {
    /// No machines yet. Inside a tokio runtime.
    ///
    /// # Errors
    /// No free loopback network, or no temporary folder.
    pub fn new(clock: Clock) -> std::io::Result<Site> {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("operator");
        std::fs::create_dir(&dir)?;
        let key: PrivateKey = Ed25519Keypair::from_seed(&rand::random()).into();
        let text = key.to_openssh(LineEnding::LF).map_err(std::io::Error::other)?;
        std::fs::write(dir.join("id"), text.as_bytes())?;
        std::fs::set_permissions(dir.join("id"), std::fs::Permissions::from_mode(0o600))?;
        let world = Arc::new(World {
            clock,
            journal: Journal::default(),
            faults: Faults::default(),
            net: Subnet::claim()?,
            dir: folder.path().into(),
        });
        let kube = Arc::new(Kube::new(world.clone()));
        let hosts = Hosts::new(world.clone(), kube, PORT);
        Ok(Site { hosts, world, dir, key, _dir: folder })
    }

    /// The address with this last octet.
    pub fn address(&self, last: u8) -> Ipv4Addr {
        self.world.net.host(last)
    }

    /// Adds a machine, waits until it answers, and gives its entry for `spec.machines`.
    ///
    /// # Errors
    /// It does not answer within ten seconds.
    pub async fn machine(&self, name: &str, role: &str, last: u8) -> std::io::Result<Value> {
        self.machine_with(name, role, last, vec![20 << 30]).await
    }

    /// The same with these disks, in bytes; the first is the system's.
    ///
    /// # Errors
    /// It does not answer within ten seconds.
    pub async fn machine_with(
        &self,
        name: &str,
        role: &str,
        last: u8,
        disks: Vec<u64>,
    ) -> std::io::Result<Value> {
        let public = self.key.public_key().to_openssh().map_err(std::io::Error::other)?;
        self.hosts.add(Boot {
            name: name.into(),
            address: Some(self.address(last)),
            mac: format!("bc:24:11:00:00:{last:02x}"),
            user: "kubeline".into(),
            authorized_keys: vec![public],
            cores: 2,
            memory_mib: 2048,
            disks,
            agent: true,
            ..Boot::default()
        });
        self.answers(last).await?;
        Ok(self.entry(name, role, last))
    }

    /// Waits until the SSH server at this address answers.
    ///
    /// # Errors
    /// It does not within ten seconds.
    pub async fn answers(&self, last: u8) -> std::io::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match tokio::net::TcpStream::connect((self.address(last), PORT)).await {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// The entry of `spec.machines` for a machine, whether it is there or not.
    pub fn entry(&self, name: &str, role: &str, last: u8) -> Value {
        let mut entry = json!({ "name": name, "role": role, "address": self.address(last) });
        if let Some(key) = self.hosts.host_key(name) {
            entry["hostKey"] = key.into();
        }
        entry
    }

    /// `spec.ssh` for these machines.
    pub fn ssh(&self) -> Value {
        json!({ "user": "kubeline", "identityFile": "id", "port": PORT })
    }

    /// A case of this site with this `spec`.
    pub fn case(self, spec: Value) -> Case {
        let document = json!({
            "apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": { "name": "law" }, "spec": spec,
        });
        let mut same: Vec<(String, String)> = Vec::new();
        for host in self.hosts.all() {
            let name = host.name();
            same.extend(self.hosts.host_key(&name).map(|key| (key, format!("<key of {name}>"))));
        }
        let net = self.world.net.host(0).to_string();
        same.push((net.trim_end_matches('0').to_owned(), "NET.".into()));
        let private = self.key.to_openssh(LineEnding::LF).map(|t| t.to_string()).unwrap_or_default();
        // The line of the key that holds the secret half.
        let secrets = private.lines().nth(3).map(str::to_owned).into_iter().collect();
        let hosts = self.hosts.clone();
        Case {
            journal: self.world.journal.clone(),
            faults: self.world.faults.clone(),
            dir: self.dir.clone(),
            document: format!("{document:#}\n"),
            secrets,
            same,
            picture: Box::new(move || picture(&hosts)),
            keep: Box::new(self),
        }
    }
}

/// All that a run leaves on machines: files, packages, units, what HAProxy and keepalived run with, who holds what.
pub fn picture(hosts: &Hosts) -> String {
    let mut text = String::new();
    for host in hosts.all() {
        let held = hosts.held_by(host.vmid);
        let machine = host.machine();
        text.push_str(&format!("== {} holds {held:?}\n", machine.boot.name));
        for package in CATALOGUE.iter().filter(|p| !p.base) {
            if let Some(version) = machine.packages.version(package.name) {
                text.push_str(&format!("package {} {version}\n", package.name));
            }
        }
        for unit in UNITS {
            if machine.services.active(unit) {
                text.push_str(&format!("unit {unit} is active\n"));
            }
        }
        if let Some(running) = &machine.haproxy {
            text.push_str(&format!("haproxy runs {:?}\n", running.config));
        }
        if let Some(running) = &machine.keepalived {
            text.push_str(&format!("keepalived runs {running:?}\n"));
        }
        for path in FOLDERS.iter().flat_map(|folder| machine.fs.walk(folder)) {
            if OWN.iter().any(|own| path.starts_with(own)) {
                continue;
            }
            let Ok(node) = machine.fs.link_node(&path) else { continue };
            let content = machine.fs.read(&path).map(|c| String::from_utf8_lossy(c).into_owned());
            let content = content.unwrap_or_default();
            text.push_str(&format!("{path} {:o} {}:{}\n{content}\n", node.mode, node.owner, node.group));
        }
    }
    text
}
