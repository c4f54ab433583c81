//! Templates: which one a machine on a node is cloned from, or how one is made; pure.

use std::collections::BTreeMap;

use cluster_doc::spec::CloneMode;

use crate::options::{Options, boot_disk, disks};
use crate::seen::{Guest, Seen};
use crate::want::Design;

/// What a machine on some node is cloned from.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The template's id.
    pub vmid: u32,
    /// The node that has it.
    pub node: String,
    /// Its resource pool.
    pub pool: Option<String>,
    /// Its options.
    pub options: Options,
    /// True when the clone shares its blocks.
    pub linked: bool,
    /// True when it is still to be made.
    pub made: bool,
}

/// Storage types that clone without copying (pve-storage, `volume_has_feature` of each plugin).
const LINKED: [&str; 9] = ["dir", "btrfs", "nfs", "cifs", "cephfs", "lvmthin", "zfspool", "rbd", "zfs"];

fn volume_storage(volume: &str) -> &str {
    volume.split(':').next().unwrap_or_default()
}

/// The source for a node, or why there is none.
///
/// # Errors
/// Why nothing can be cloned to that node.
pub fn source(design: &Design, seen: &Seen, node: &str) -> Result<Source, String> {
    let mut all: Vec<&Guest> = seen.guests.iter().filter(|g| is_ours(design, g)).collect();
    all.sort_by_key(|g| (g.node != node, g.vmid));
    let mut last = format!("has no template named {}", design.template);
    for guest in all {
        match fits(design, seen, guest, node) {
            Ok(source) => return Ok(source),
            Err(why) if guest.node == node => last = why,
            Err(_) => {}
        }
    }
    Err(last)
}

/// True for a template of the name that the document gives.
pub fn is_ours(design: &Design, guest: &Guest) -> bool {
    guest.is_template() && guest.name.as_deref() == Some(&design.template)
}

fn fits(design: &Design, seen: &Seen, guest: &Guest, node: &str) -> Result<Source, String> {
    let options = guest.config.clone().unwrap_or_default();
    let boot = boot_disk(&options);
    let disk = disks(&options).into_iter().find(|d| Some(&d.slot) == boot.as_ref());
    let disk = disk.ok_or_else(|| format!("template {} has no disk", guest.vmid))?;
    let storage = volume_storage(&disk.volume).to_owned();
    let known = |name: &str| seen.nodes.get(&guest.node).and_then(|n| n.storages.get(name));
    let kind = known(&storage).map(|s| s.kind.as_str()).unwrap_or_default();
    // A linked clone stays on the template's storage.
    let can = LINKED.contains(&kind) && storage == design.storage;
    let linked = match design.clone {
        Some(CloneMode::Full) => false,
        Some(CloneMode::Linked) if !can => {
            return Err(format!(
                "template {} on the storage {storage} ({kind}) cannot have linked clones on {}",
                guest.vmid, design.storage
            ));
        }
        Some(CloneMode::Linked) => true,
        None => can,
    };
    if guest.node != node {
        // Only what all nodes see can be cloned across (qemu-server, API2/Qemu.pm).
        let shared = |name: &str| known(name).is_some_and(|s| s.shared);
        let drives = options.iter().filter(|(k, v)| v.contains(':') && crate::options::is_drive(k));
        let mut drives = drives.map(|(_, v)| volume_storage(v));
        if !drives.all(shared) || !shared(&design.storage) {
            return Err(format!("has no template, and that of {} is on a local storage", guest.node));
        }
    }
    let (vmid, node, pool) = (guest.vmid, guest.node.clone(), guest.pool.clone());
    Ok(Source { vmid, node, pool, options, linked, made: false })
}

/// The options of a fresh clone, as far as they are known before it exists.
pub fn cloned(source: &Source, name: &str, description: &str) -> Options {
    let mut options: BTreeMap<String, String> = source.options.clone();
    for gone in ["template", "lock", "digest", "vmgenid", "smbios1", "meta"] {
        options.remove(gone);
    }
    options.insert("name".to_owned(), name.to_owned());
    options.insert("description".to_owned(), description.to_owned());
    options
}
