//! What is there: machines and cluster.

use std::collections::BTreeMap;

use fleet::units::{self, Unit};
use fleet::{Fleet, failure, packages};
use remote::{Command, Host};
use serde::{Deserialize, Serialize};
use stage::Failure;

use crate::exports::{self, InForce};
use crate::want::{Server, Want};

/// What is there on the machines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Found {
    /// The NFS machine, when it answers.
    pub server: Option<ServerSeen>,
    /// The version of nfs-common on each client that answers.
    pub clients: BTreeMap<String, Option<String>>,
    /// The machines that do not answer, and why.
    pub unreachable: BTreeMap<String, String>,
}

/// The NFS machine as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerSeen {
    /// The version of nfs-kernel-server.
    pub package: Option<String>,
    /// nfs-server.service.
    pub unit: Unit,
    /// Its disks.
    pub disks: Vec<DiskSeen>,
    /// /etc/fstab.
    pub fstab: String,
    /// Our file of exports.
    pub exports_file: Option<String>,
    /// The exports in force.
    pub exports: Vec<InForce>,
    /// Mode and owner of each folder that is there, such as `755 root:root`.
    pub folders: BTreeMap<String, String>,
}

/// A disk, as lsblk says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskSeen {
    /// The device.
    pub name: String,
    /// Its serial number.
    pub serial: Option<String>,
    /// What it holds: a file system, or another signature.
    pub fstype: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// The file system's UUID.
    pub uuid: Option<String>,
    /// Where it is mounted.
    pub mountpoints: Vec<Option<String>>,
    /// Its partitions.
    pub children: Vec<serde_json::Value>,
}

/// What lsblk prints.
#[derive(Deserialize)]
struct Listing {
    blockdevices: Vec<DiskSeen>,
}

pub(crate) async fn look(fleet: &Fleet, want: &Want) -> Result<Found, Failure> {
    let client = async |name: &String| {
        let Some(host) = fleet.get(name) else { return Ok(None) };
        let version = packages::version(host, "nfs-common").await;
        let version = version.map_err(|e| failure(format!("cannot look at the packages of {name}"), &e))?;
        Ok::<_, Failure>(Some((name.clone(), version)))
    };
    let server = async {
        let found = want.server.as_ref().and_then(|server| Some((server, fleet.get(&server.name)?)));
        match found {
            Some((server, host)) => Box::pin(look_at(host, server)).await.map(Some),
            None => Ok(None),
        }
    };
    let (clients, server) =
        futures::try_join!(futures::future::try_join_all(want.clients.iter().map(client)), server)?;
    Ok(Found {
        server,
        clients: clients.into_iter().flatten().collect(),
        unreachable: fleet.unreachable().clone(),
    })
}

async fn look_at(host: &Host, server: &Server) -> Result<ServerSeen, Failure> {
    let paths: Vec<&str> = server.exports.iter().map(|export| export.path.as_str()).collect();
    let columns = "NAME,SERIAL,TYPE,FSTYPE,LABEL,UUID,MOUNTPOINTS";
    let lsblk = Command::new("lsblk").args(["-J", "-b", "-p", "-o", columns]).sudo();
    let exportfs = Command::new("exportfs").arg("-v").sudo();
    let stat = Command::new("stat").args(["-c", "%n %a %U:%G"]).args(paths);
    let (package, unit, disks, fstab, file, table, folders) = futures::try_join!(
        packages::version(host, "nfs-kernel-server"),
        units::unit(host, "nfs-server.service"),
        host.ok(&lsblk),
        host.read("/etc/fstab"),
        host.read(exports::PATH),
        host.run(&exportfs),
        // It fails where one is missing, and tells of the others.
        host.run(&stat),
    )
    .map_err(|e| failure(format!("cannot look at {}", server.name), &e))?;
    let said = |why: String| Failure::internal(format!("cannot look at {}", server.name)).because(why);
    let listing: Listing = serde_json::from_slice(&disks.stdout).map_err(|e| said(format!("lsblk: {e}")))?;
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let split = |line: &str| line.split_once(' ').map(|(path, rest)| (path.to_owned(), rest.to_owned()));
    Ok(ServerSeen {
        // Before the package is there the program is missing.
        exports: if package.is_some() { exports::in_force(&table.text()).map_err(said)? } else { Vec::new() },
        package,
        unit,
        disks: listing.blockdevices,
        fstab: text(fstab).unwrap_or_default(),
        exports_file: text(file),
        folders: folders.text().lines().filter_map(split).collect(),
    })
}
