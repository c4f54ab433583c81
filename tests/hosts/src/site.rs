//! A site: load balancers, stand-ins for what is behind them, an operator's folder.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use lab::{Faults, Journal};
use laws::Case;
use rand::random;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{PrivateKey, ssh_key::private::Ed25519Keypair};
use serde_json::{Value, json};

use crate::must::must;
use crate::standins::{ApiServer, Authority, Worker};
use crate::{Machine, Result};

/// The site's network, without the last octet.
const NET: [u8; 3] = [10, 99, 0];

/// The address with this last octet.
pub fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(NET[0], NET[1], NET[2], last)
}

/// Everything that a scenario needs.
pub struct Site {
    /// The load balancers.
    pub machines: Vec<Machine>,
    /// Three API servers.
    pub api: Vec<ApiServer>,
    /// Three workers.
    pub workers: Vec<Worker>,
    /// The authority that signed the API servers' certificates.
    pub authority: Authority,
    /// The shared address.
    pub vip: Ipv4Addr,
    /// The operator's folder: the tools' working directory.
    pub dir: PathBuf,
    private: String,
}

impl Site {
    /// A bridge, its machines and stand-ins. Everything is below a file system in memory.
    pub(crate) async fn new(base: &Path, folder: &Path, balancers: u8) -> Result<Site> {
        let at = folder.to_string_lossy().into_owned();
        must("mount", &["-t", "tmpfs", "tmpfs", "-o", "mode=755", &at]).await?;
        must("ip", &["link", "set", "lo", "up"]).await?;
        // No spanning tree and no delay: a port forwards as soon as it is up, as a host's port on a switch should.
        // An address of its own: else it takes that of a port, and another one when that machine is switched off.
        let bridge =
            ["link", "add", "br0", "address", "02:99:00:00:00:01", "type", "bridge", "forward_delay", "0"];
        must("ip", &bridge).await?;
        must("ip", &["link", "set", "br0", "up"]).await?;
        for last in [1].into_iter().chain(21..=23).chain(31..=33) {
            must("ip", &["address", "add", &format!("{}/24", address(last)), "dev", "br0"]).await?;
        }
        let dir = folder.join("operator");
        std::fs::create_dir(&dir)?;
        let key: PrivateKey = Ed25519Keypair::from_seed(&random()).into();
        let private = key.to_openssh(LineEnding::LF)?.to_string();
        std::fs::write(dir.join("id"), &private)?;
        std::fs::set_permissions(dir.join("id"), std::fs::Permissions::from_mode(0o600))?;
        let public = key.public_key().to_openssh()?;
        let boots = (1..=balancers).map(|n| {
            let public = public.as_str();
            async move { Machine::new(folder, base, &format!("lb-{n}"), address(10 + n), public).await }
        });
        let machines = futures::future::try_join_all(boots).await?;
        let authority = Authority::new()?;
        let (mut api, mut workers) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            api.push(ApiServer::start(&format!("cp-{n}"), address(20 + n), &authority).await?);
            workers.push(Worker::start(&format!("w-{n}"), address(30 + n), &authority).await?);
        }
        Ok(Site { machines, api, workers, authority, vip: address(10), dir, private })
    }

    /// The machine of this name.
    ///
    /// # Panics
    /// There is none.
    #[allow(clippy::panic, reason = "a test names the machines that it asked for")]
    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// `spec` for these machines and stand-ins.
    pub fn spec(&self) -> Value {
        let mut machines: Vec<Value> = Vec::new();
        for m in &self.machines {
            machines.push(json!({
                "name": m.name, "role": "load-balancer", "address": m.address, "hostKey": m.host_key,
            }));
        }
        let entry =
            |name: &str, role: &str, at: Ipv4Addr| json!({ "name": name, "role": role, "address": at });
        machines.extend(self.api.iter().map(|a| entry(&a.name, "control-plane", a.address)));
        machines.extend(self.workers.iter().map(|w| entry(&w.name, "worker", w.address)));
        json!({
            "vip": { "address": self.vip, "routerId": 30 },
            "ssh": { "user": "kubeline", "identityFile": "id" },
            "machines": machines,
            "kubernetes": {
                "version": "1.36.2", "podCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/12",
                "kubeconfig": "kubeconfig",
            },
        })
    }

    /// A document with this `spec`.
    pub fn document(&self, spec: &Value) -> String {
        let document = json!({
            "apiVersion": "kubeline/v1", "kind": "Cluster", "metadata": { "name": "real" }, "spec": spec,
        });
        format!("{document:#}\n")
    }

    /// A case for runs of the tools over this site, whose document has this `spec`.
    pub fn case(&self, spec: &Value) -> Case {
        let mut same: Vec<(String, String)> = Vec::new();
        for m in &self.machines {
            same.push((m.host_key.clone(), format!("<key of {}>", m.name)));
        }
        let roots: Vec<(String, PathBuf)> =
            self.machines.iter().map(|m| (m.name.clone(), m.file("/"))).collect();
        Case {
            journal: Journal::default(),
            faults: Faults::default(),
            dir: self.dir.clone(),
            document: self.document(spec),
            // The line of the key that holds the secret half.
            secrets: self.private.lines().nth(3).map(str::to_owned).into_iter().collect(),
            same,
            picture: Box::new(move || roots.iter().map(|(name, root)| picture(name, root)).collect()),
            keep: Box::new(()),
        }
    }
}

/// Folders whose files belong to what a run leaves.
const FOLDERS: [&str; 4] = ["etc/haproxy", "etc/keepalived", "etc/systemd/system", "usr/libexec/kubeline"];

/// All that a run leaves in a machine's files, with their modes.
fn picture(name: &str, root: &Path) -> String {
    let mut text = format!("== {name}\n");
    let mut folders: Vec<PathBuf> = FOLDERS.iter().map(|f| root.join(f)).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_symlink() {
                let to = std::fs::read_link(&path).unwrap_or_default();
                text.push_str(&format!("{shown} -> {}\n", to.display()));
            } else {
                let content = std::fs::read(&path).unwrap_or_default();
                text.push_str(&format!("{shown} {mode:o}\n{}\n", String::from_utf8_lossy(&content)));
            }
        }
    }
    text
}
