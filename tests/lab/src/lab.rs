//! The whole lab: the three windows over one world, and the artefact server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::hosts::Hosts;
use crate::kube::Kube;
use crate::kube::artefacts::Artefacts;
use crate::pve::{Generation, NodeConfig, Proxmox, ProxmoxConfig};
use crate::world::{Shared, World};
use crate::{Clock, Faults, Journal, Subnet, twin};

/// How a lab is set up.
#[derive(Debug)]
pub struct Config {
    /// Where it keeps its files: CA, token, keys, the twin document.
    pub dir: PathBuf,
    /// Its network; a free one unless given.
    pub net: Option<Subnet>,
    /// Latencies.
    pub clock: Clock,
    /// Proxmox VE 8 or 9.
    pub generation: Generation,
    /// The port of the Proxmox API on each node's address.
    pub pve_port: u16,
    /// The SSH port of each machine.
    pub ssh_port: u16,
    /// The cluster's name in the twin document.
    pub name: String,
    /// How many nodes the Proxmox cluster has, 1 to 50.
    pub nodes: u8,
    /// The rights of users and tokens at Proxmox instead of the lab's own, which are the least.
    pub rights: Option<Vec<crate::pve::Acl>>,
    /// A storage that all nodes see, with the right to use it and to have machines in the HA manager's care.
    pub shared: Option<String>,
    /// True when the images have qemu-guest-agent, which plain cloud images have not.
    pub agent: bool,
}

impl Config {
    /// A lab without latencies on a free network, with its files in `dir`.
    pub fn quick(dir: &Path) -> Config {
        Config {
            dir: dir.to_path_buf(),
            net: None,
            clock: Clock::ZERO,
            generation: Generation::V9,
            pve_port: 8006,
            ssh_port: 2222,
            name: "demo".into(),
            nodes: 3,
            rights: None,
            shared: None,
            agent: false,
        }
    }
}

/// A running lab.
pub struct Lab {
    /// Clock, journal, faults, network, directory.
    pub world: Shared,
    /// The Proxmox window.
    pub pve: Proxmox,
    /// The SSH window.
    pub hosts: Hosts,
    /// The Kubernetes window.
    pub kube: Kube,
    /// The server of upstream artefacts.
    pub artefacts: Artefacts,
    config: Config,
}

impl Lab {
    /// Starts everything, inside a tokio runtime, and writes the lab's files.
    ///
    /// # Errors
    /// An address in use, a directory that cannot be written.
    pub async fn start(mut config: Config) -> io::Result<Lab> {
        std::fs::create_dir_all(&config.dir)?;
        let net = match config.net.take() {
            Some(net) => net,
            None => Subnet::claim()?,
        };
        let world = Arc::new(World {
            clock: config.clock,
            journal: Journal::default(),
            faults: Faults::default(),
            net,
            dir: config.dir.clone(),
        });
        let kube = Kube::new(world.clone());
        let hosts = Hosts::new(world.clone(), Arc::new(kube.clone()), config.ssh_port);
        let mut proxmox = ProxmoxConfig {
            port: config.pve_port,
            agent_in_images: config.agent,
            // Backup jobs need it, which the document has.
            ..ProxmoxConfig::of(config.generation).grant("/", "Sys.Modify")
        };
        let one = proxmox.nodes.first().cloned();
        proxmox.nodes = (1..=config.nodes)
            .filter_map(|n| Some(NodeConfig { name: format!("pve{n}"), host: 200 + n, ..one.clone()? }))
            .collect();
        if let Some(name) = &config.shared {
            proxmox = proxmox.with_shared(name).grant("/", "Sys.Console");
        }
        if let Some(rights) = config.rights.take() {
            for user in &mut proxmox.users {
                user.acl.clone_from(&rights);
                user.tokens.iter_mut().for_each(|t| t.acl.clone_from(&rights));
            }
        }
        let pve = Proxmox::start(world.clone(), Arc::new(hosts.clone()), proxmox)?;
        for (n, node) in pve.nodes().iter().enumerate() {
            pve.add_template(9000 + n as u32, twin::TEMPLATE, node, "local-lvm");
        }
        let artefacts = Artefacts::start(world.clone()).await?;
        let lab = Lab { world, pve, hosts, kube, artefacts, config };
        twin::files(&lab)?;
        Ok(lab)
    }

    /// The document of `ha.json`'s cluster for this lab: loopback addresses and high ports.
    pub fn document(&self) -> Value {
        twin::document(self)
    }

    /// Where the lab keeps its files.
    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// The cluster's name in the twin document.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The SSH port of each machine.
    pub fn ssh_port(&self) -> u16 {
        self.config.ssh_port
    }

    /// The address of the Proxmox API, on its first node.
    pub fn endpoint(&self) -> String {
        format!("https://{}:{}", self.world.net.host(201), self.config.pve_port)
    }
}
