//! What the operator wants: every refusal of input is here.

use std::net::Ipv4Addr;

use addon::{Access, Addon, Flags, Installer as _};
use cluster_doc::spec::{OnDelete, Packages, Role, Spec};
use cluster_doc::{Document, Machine, Pointer, Refusals};
use fleet::Route;
use stage::{Failure, Site};

use crate::Nfs;
use crate::exports::{self, Export};
use crate::objects::{self, Class};

/// The provisioner's image: the last release of its publisher.
const IMAGE: &str = "registry.k8s.io/sig-storage/nfs-subdir-external-provisioner:v4.0.2";

/// What the operator wants.
#[derive(Debug)]
pub struct Want {
    /// How the cluster is reached.
    pub access: Access,
    /// How the machines are reached.
    pub route: Route,
    /// Where packages come from.
    pub packages: Packages,
    /// The NFS machine.
    pub server: Option<Server>,
    /// The machines that mount, by name.
    pub clients: Vec<String>,
    /// The storage classes.
    pub classes: Vec<Class>,
    /// The objects.
    pub addon: Addon,
}

/// The NFS machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its data disks that are mounted.
    pub disks: Vec<Disk>,
    /// The folders that it exports.
    pub exports: Vec<Export>,
    /// Our file of exports.
    pub exports_file: String,
}

/// A data disk that shall be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its name, which is its serial number and its file system's label.
    pub name: String,
    /// The serial number that QEMU gives when nobody gave one: its place on the bus.
    pub place: String,
    /// Where it is mounted.
    pub mount: String,
}

impl Disk {
    /// The file system's label: ext4 holds 16 bytes (mke2fs, -L).
    pub fn label(&self) -> &str {
        self.name.get(..16).unwrap_or(&self.name)
    }
}

impl addon::Wanted for Want {
    fn access(&self) -> &Access {
        &self.access
    }

    fn addon(&self) -> &Addon {
        &self.addon
    }
}

pub(crate) fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(Nfs::READS)?;
    let (storage, ssh) = (spec.storage()?, spec.ssh()?);
    let machines = doc.machines(&spec);
    let of = |role: Role| machines.iter().filter(move |m| m.role == role && !m.leaving);
    let mut wrong = Refusals::default();
    let servers: Vec<&Machine> = of(Role::Nfs).collect();
    if let [_, second, ..] = servers.as_slice() {
        let at = Pointer::root().key("spec").key(if second.pool.is_some() { "pools" } else { "machines" });
        wrong.add(
            at,
            format!("holds {} machines of the role \"nfs\"; the exports live on one", servers.len()),
        );
    }
    if !wrong.is_empty() {
        return Err(doc.locate(wrong).into());
    }
    let address = |m: &Machine| m.address.to_string();
    let etcd = spec.backup.as_ref().and_then(|b| b.etcd.as_ref());
    let server = servers.first().map(|machine| {
        let disks = disks(&spec, machine);
        let inside =
            |path: &str| disks.iter().find(|d| path == d.mount || path.starts_with(&format!("{}/", d.mount)));
        let export = |path: &str, mode: u32, clients: Vec<String>| Export {
            path: path.to_owned(),
            mode,
            clients,
            mount: inside(path).map(|disk| disk.mount.clone()),
        };
        let workers: Vec<String> = of(Role::Worker).map(address).collect();
        let mut all: Vec<Export> =
            storage.exports.iter().map(|e| export(e.path.as_str(), 0o755, workers.clone())).collect();
        all.extend(
            etcd.map(|e| export(e.export.as_str(), 0o700, of(Role::ControlPlane).map(address).collect())),
        );
        all.retain(|export| !export.clients.is_empty());
        let exports_file = exports::file(&all);
        Server { name: machine.name.clone(), address: machine.address, disks, exports: all, exports_file }
    });
    let clients = of(Role::Worker).chain(of(Role::ControlPlane).filter(|_| etcd.is_some()));
    let clients: Vec<&Machine> = if server.is_some() { clients.collect() } else { Vec::new() };
    let reached = servers.iter().copied().chain(clients.iter().copied());
    let classes: Vec<Class> = storage
        .exports
        .iter()
        .filter_map(|export| {
            Some(Class {
                name: export.storage_class.to_string(),
                provisioner: format!("kubeline/{}", export.storage_class),
                server: server.as_ref()?.address.to_string(),
                path: export.path.to_string(),
                on_delete: match export.on_delete {
                    OnDelete::Archive => "archive",
                    OnDelete::Delete => "delete",
                    OnDelete::Retain => "retain",
                },
                default: export.default,
                image: IMAGE,
            })
        })
        .collect();
    let addon = if classes.is_empty() {
        Addon::new(Nfs::NAME)
    } else {
        objects::addon(&classes, spec.registry.as_ref())?
    };
    Ok(Want {
        access: Access::new(flags, doc, &spec, site),
        route: Route::new(reached, ssh, site),
        packages: spec.packages.clone().unwrap_or_default(),
        clients: clients.iter().map(|m| m.name.clone()).collect(),
        server,
        classes,
        addon,
    })
}

/// The disks of a pool's machine that are mounted; scsi0 is the system's.
fn disks(spec: &Spec, machine: &Machine) -> Vec<Disk> {
    let pool = spec.pools.iter().flatten().find(|pool| Some(&pool.name) == machine.pool.as_ref());
    let all = pool.into_iter().flat_map(|pool| pool.disks.iter().enumerate());
    all.filter_map(|(n, disk)| {
        let mount = disk.mount.as_ref()?.to_string();
        Some(Disk { name: disk.name.to_string(), place: format!("drive-scsi{}", n + 1), mount })
    })
    .collect()
}
