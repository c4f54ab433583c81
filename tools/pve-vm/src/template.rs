//! Templates: which one a machine on a node is cloned from, or how one is made; pure.

use std::collections::BTreeMap;

use cluster_doc::spec::{CloneMode, Image};

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
    /// What makes it, when it is still to be made.
    pub made: Option<Made>,
}

/// A template that is to be made of a cloud image.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The storage for images.
    pub storage: String,
    /// Where the image is.
    pub from: From,
    /// The file's name on the storage: with the digest, so that a new image is a new file.
    pub file: String,
    /// The digest: algorithm and hex digits.
    pub digest: (String, String),
}

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// The node downloads it.
    Url(String),
    /// A file of the operator's, uploaded.
    File(String),
}

impl From {
    /// Proxmox tells formats by the name's end; what is called `.img` is qcow2 in the clouds of Debian and Ubuntu.
    fn ending(&self) -> &'static str {
        let (From::Url(name) | From::File(name)) = self;
        let name = name.to_ascii_lowercase();
        ["raw", "vmdk"].into_iter().find(|end| name.ends_with(&format!(".{end}"))).unwrap_or("qcow2")
    }
}

/// Storage types that clone without copying (pve-storage, `volume_has_feature` of each plugin).
const LINKED: [&str; 9] = ["dir", "btrfs", "nfs", "cifs", "cephfs", "lvmthin", "zfspool", "rbd", "zfs"];

fn volume_storage(volume: &str) -> &str {
    volume.split(':').next().unwrap_or_default()
}

/// The source for a node: a template that exists, else one that can be made, else why there is none.
///
/// # Errors
/// Why nothing can be cloned to that node.
pub fn source(design: &Design, seen: &Seen, node: &str) -> Result<Source, String> {
    let missing = match existing(design, seen, node) {
        Ok(source) => return Ok(source),
        Err(why) => why,
    };
    match &design.image {
        Some(image) => to_make(design, seen, node, image).map_err(|why| format!("{missing}, and {why}")),
        None => Err(missing),
    }
}

/// The mark in the description of a template that pve-vm makes of an image with this digest.
pub fn mark(design: &Design, digest: &(String, String)) -> String {
    format!("{} \"digest\":\"{}:{}\"}} -->", begin(design), digest.0, digest.1)
}

fn begin(design: &Design) -> String {
    let (cluster, template) = (&design.cluster, &design.template);
    format!("<!-- pve-vm-template {{\"cluster\":\"{cluster}\",\"template\":\"{template}\",")
}

/// The digest in the mark of a template that pve-vm made for this cluster.
pub fn made_of<'g>(design: &Design, guest: &'g Guest) -> Option<&'g str> {
    let rest = guest.option("description")?.trim_end().strip_prefix(&begin(design))?;
    rest.trim_start().strip_prefix("\"digest\":\"")?.strip_suffix("\"} -->")
}

/// True for a template of ours whose making broke off.
pub fn unfinished(design: &Design, guest: &Guest) -> bool {
    made_of(design, guest).is_some() && !guest.is_template()
}

/// True for a template of ours that was made of another image than the document's, when that matters.
fn outdated(design: &Design, seen: &Seen, guest: &Guest) -> bool {
    let Some((algorithm, hex)) = seen.digest.as_ref().filter(|_| design.refresh_templates) else {
        return false;
    };
    made_of(design, guest).is_some_and(|digest| digest != format!("{algorithm}:{hex}"))
}

/// Ids for templates, from the end of the range: one for each node that has none.
fn id(design: &Design, seen: &Seen, node: &str) -> Option<u32> {
    let begun = |g: &&Guest| g.node == node && unfinished(design, g) && !outdated(design, seen, g);
    if let Some(begun) = seen.guests.iter().find(begun) {
        return Some(begun.vmid);
    }
    let without = design.nodes.iter().filter(|n| {
        existing(design, seen, n).is_err()
            && !seen.guests.iter().any(|g| g.node == **n && unfinished(design, g))
    });
    let place = without.into_iter().position(|n| n == node)?;
    let ids = (0..design.vmids.len()).rev().filter_map(|n| design.vmids.nth(n)).map(|id| id.get());
    ids.filter(|id| !seen.guests.iter().any(|g| g.vmid == *id)).nth(place)
}

fn to_make(design: &Design, seen: &Seen, node: &str, image: &Image) -> Result<Source, String> {
    // The content type import exists since 8.3; before, only root could import (pve-storage, qemu-server).
    if seen.version < (8, 3) {
        return Err(format!(
            "Proxmox VE {}.{} cannot import images (8.3 can)",
            seen.version.0, seen.version.1
        ));
    }
    let from = match (&image.url, &image.file) {
        (Some(url), _) => From::Url(url.clone()),
        (None, Some(file)) => From::File(file.to_string()),
        (None, None) => return Err("the image has neither url nor file".to_owned()),
    };
    let digest = seen.digest.clone().ok_or("the image has no checksum")?;
    let storage = image.storage.to_string();
    let found = seen.nodes.get(node).and_then(|n| n.storages.get(&storage));
    if !found.is_some_and(|s| s.content.iter().any(|c| c == "import")) {
        return Err(format!(
            "the storage {storage} does not take images there (pvesm set {storage} --content ...,import)"
        ));
    }
    let vmid = id(design, seen, node).ok_or("no id is left for one")?;
    let kind = seen.nodes.get(node).and_then(|n| n.storages.get(&design.storage)).map(|s| s.kind.as_str());
    let can = kind.is_some_and(|k| LINKED.contains(&k));
    if design.clone == Some(CloneMode::Linked) && !can {
        return Err(format!("the storage {} cannot have linked clones", design.storage));
    }
    let short: String = digest.1.chars().take(12).collect();
    let file = format!("{}-{short}.{}", design.template, from.ending());
    let options = [
        ("name", design.template.clone()),
        ("description", mark(design, &digest)),
        ("ostype", "l26".to_owned()),
        ("cores", "1".to_owned()),
        ("memory", "1024".to_owned()),
        ("scsihw", "virtio-scsi-single".to_owned()),
        ("scsi0", format!("{}:0,discard=on,import-from={storage}:import/{file}", design.storage)),
        ("boot", "order=scsi0".to_owned()),
        ("serial0", "socket".to_owned()),
        ("vga", "serial0".to_owned()),
        ("agent", "enabled=1".to_owned()),
        ("net0", crate::options::net_moved(None, &design.bridge, design.vlan)),
    ];
    Ok(Source {
        vmid,
        node: node.to_owned(),
        pool: design.pool.clone(),
        options: options.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        linked: can && design.clone != Some(CloneMode::Full),
        made: Some(Made { storage, from, file, digest }),
    })
}

/// The source for a node among the templates that exist.
///
/// # Errors
/// Why none of them will do.
pub fn existing(design: &Design, seen: &Seen, node: &str) -> Result<Source, String> {
    let mut all: Vec<&Guest> =
        seen.guests.iter().filter(|g| is_ours(design, g) && !outdated(design, seen, g)).collect();
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
    Ok(Source { vmid, node, pool, options, linked, made: None })
}

/// The options of a fresh clone, as far as they are known before it exists.
pub fn cloned(source: &Source, name: &str, description: &str) -> Options {
    let mut options: BTreeMap<String, String> = source.options.clone();
    for gone in ["template", "lock", "digest", "vmgenid", "smbios1", "meta"] {
        options.remove(gone);
    }
    if source.made.is_some() {
        // The size is the image's, which is not known yet.
        options.insert("scsi0".to_owned(), format!("{}-disk-0,size=0", name));
    }
    options.insert("name".to_owned(), name.to_owned());
    options.insert("description".to_owned(), description.to_owned());
    options
}
