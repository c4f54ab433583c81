//! The steps: each carries every id, name and value that it needs.

mod line;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use cluster_doc::spec::GuestKind;
use serde::Serialize;

use crate::ha::Entry;
use crate::seed::FirstBoot;
use crate::seen::Guest;

/// A guest that a step works on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct At {
    /// The machine's name.
    pub machine: String,
    /// Its id at Proxmox.
    pub vmid: u32,
    /// The Proxmox node that it is on.
    pub node: String,
    /// What kind of guest it is.
    #[serde(skip_serializing_if = "GuestKind::is_vm")]
    pub kind: GuestKind,
}

impl At {
    /// A guest that is there.
    pub fn of(machine: &str, guest: &Guest) -> At {
        let kind = if guest.is_container() { GuestKind::Lxc } else { GuestKind::Vm };
        At { machine: machine.to_owned(), vmid: guest.vmid, node: guest.node.clone(), kind }
    }

    /// Its path in the API.
    pub fn path(&self) -> String {
        let kind = if self.kind.is_vm() { "qemu" } else { "lxc" };
        format!("/nodes/{}/{kind}/{}", self.node, self.vmid)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} on {})", self.machine, self.vmid, self.node)
    }
}

/// The bridge and VLAN that a network card is put on; its MAC address stays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Net {
    /// The bridge.
    pub bridge: String,
    /// The VLAN.
    pub vlan: Option<u16>,
}

/// One change at Proxmox.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Step {
    /// Makes the resource pool.
    MakePool {
        /// Its name.
        pool: String,
        /// The comment that says whose it is.
        comment: String,
    },
    /// Lets a node download a cloud image, or the archive of a container.
    Download {
        /// The Proxmox node.
        node: String,
        /// The storage for it.
        storage: String,
        /// Its content type: `import` or `vztmpl`.
        content: String,
        /// Where from.
        url: String,
        /// The file's name there.
        file: String,
        /// The digest's algorithm.
        algorithm: String,
        /// The digest.
        digest: String,
    },
    /// Uploads a cloud image of the operator's.
    Upload {
        /// The Proxmox node.
        node: String,
        /// Its address, when it is known.
        address: Option<String>,
        /// The storage for images.
        storage: String,
        /// The file on this side.
        from: String,
        /// The file's name there.
        file: String,
        /// The digest's algorithm.
        algorithm: String,
        /// The digest.
        digest: String,
    },
    /// Makes a template from an image.
    MakeTemplate {
        /// Its name.
        name: String,
        /// Its id.
        vmid: u32,
        /// The Proxmox node.
        node: String,
        /// Options of the machine that becomes the template.
        options: BTreeMap<String, String>,
    },
    /// Clones a template.
    Clone {
        /// The new machine.
        at: At,
        /// The template's id.
        template: u32,
        /// The node that has the template.
        source: String,
        /// A copy rather than shared blocks, and the storage for it.
        full: Option<String>,
        /// The resource pool that it joins.
        pool: Option<String>,
        /// The description with the mark.
        description: String,
    },
    /// Makes a container.
    MakeContainer {
        /// The container.
        at: At,
        /// Options and their values.
        options: BTreeMap<String, String>,
        /// The resource pool that it joins.
        pool: Option<String>,
    },
    /// Notes the fingerprints of a container's host keys, which the log of its making tells.
    Note {
        /// The container.
        at: At,
        /// The tags that it bears from then on.
        tags: String,
    },
    /// Waits until a container answers over SSH with a key of those fingerprints, and notes the key.
    Pin {
        /// The container.
        at: At,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Puts a guest into the resource pool.
    Join {
        /// The machine.
        at: At,
        /// The pool.
        pool: String,
    },
    /// Sets options.
    Configure {
        /// The machine.
        at: At,
        /// Options and their values.
        set: BTreeMap<String, String>,
        /// Where the first network card shall be.
        net: Option<Net>,
        /// Options that go.
        delete: Vec<String>,
    },
    /// Grows a disk.
    Resize {
        /// The machine.
        at: At,
        /// The option that holds the disk.
        disk: String,
        /// Its new size.
        gib: u64,
    },
    /// Makes a host key, uploads the seed of the first boot with it, and puts the seed into the machine's drive.
    Seed {
        /// The machine.
        at: At,
        /// The address of its Proxmox node, when it is known.
        address: Option<String>,
        /// The storage for the seed.
        storage: String,
        /// How the seed's file is called there; its host key's digest comes after that.
        file: String,
        /// The option of the drive.
        slot: String,
        /// The host keys that its mark told of: with others, another run was here first.
        before: Vec<String>,
        /// What the machine learns from it.
        boot: FirstBoot,
    },
    /// Switches cloud-init off on a machine that has had its first boot, then takes its seed away.
    Seal {
        /// The machine.
        at: At,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Deletes the seed of a run that broke off.
    DropSeed {
        /// The Proxmox node.
        node: String,
        /// The storage that has the seed.
        storage: String,
        /// The seed's file there.
        file: String,
    },
    /// Gives a machine that is off another system disk, a copy of the template's; its other disks stay where they are.
    Renew {
        /// The machine.
        at: At,
        /// The option that holds the disk, and the volume that goes if it is there, as `scsi0=VOLUME`.
        lost: String,
        /// The drive that takes its place, with the volume that it is copied from.
        drive: String,
    },
    /// Switches a machine on.
    Start {
        /// The machine.
        at: At,
    },
    /// Waits until a machine answers over SSH with the host key in its mark.
    Ready {
        /// The machine.
        at: At,
        /// Its address.
        address: Ipv4Addr,
    },
    /// Shuts a machine down and switches it on again.
    Restart {
        /// The machine.
        at: At,
    },
    /// Switches a machine off.
    Stop {
        /// The machine.
        at: At,
    },
    /// Deletes a machine with its disks.
    Destroy {
        /// The machine.
        at: At,
    },
    /// Makes an entry of the HA manager, or changes it.
    HaSet {
        /// What it is.
        entry: Entry,
        /// Its name; a resource's is `vm:ID` or `ct:ID`.
        id: String,
        /// Its fields.
        set: BTreeMap<String, String>,
        /// True when it is there already.
        there: bool,
    },
    /// Takes an entry of the HA manager away.
    HaDrop {
        /// What it is.
        entry: Entry,
        /// Its name.
        id: String,
    },
    /// Makes the job for scheduled backups, or changes it.
    MakeJob {
        /// Its id.
        id: String,
        /// Its options.
        set: BTreeMap<String, String>,
        /// True when it is there already.
        there: bool,
    },
    /// Deletes the job for scheduled backups.
    DropJob {
        /// Its id.
        id: String,
    },
    /// Deletes a template that pve-vm made.
    DropTemplate {
        /// Its name.
        name: String,
        /// Its id.
        vmid: u32,
        /// The Proxmox node.
        node: String,
    },
    /// Deletes the empty resource pool.
    DropPool {
        /// Its name.
        pool: String,
    },
}

impl Step {
    /// The guest that the step works on.
    pub fn at(&self) -> Option<&At> {
        match self {
            Step::MakePool { .. }
            | Step::DropPool { .. }
            | Step::Download { .. }
            | Step::MakeTemplate { .. }
            | Step::DropSeed { .. }
            | Step::DropTemplate { .. }
            | Step::HaSet { .. }
            | Step::HaDrop { .. }
            | Step::MakeJob { .. }
            | Step::DropJob { .. }
            | Step::Upload { .. } => None,
            Step::Clone { at, .. }
            | Step::MakeContainer { at, .. }
            | Step::Note { at, .. }
            | Step::Pin { at, .. }
            | Step::Join { at, .. }
            | Step::Configure { at, .. }
            | Step::Resize { at, .. }
            | Step::Seed { at, .. }
            | Step::Seal { at, .. }
            | Step::Renew { at, .. }
            | Step::Start { at }
            | Step::Ready { at, .. }
            | Step::Restart { at }
            | Step::Stop { at }
            | Step::Destroy { at } => Some(at),
        }
    }
}

impl Step {
    /// The Proxmox nodes that it cannot be done without.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Step::MakePool { .. } | Step::DropPool { .. } | Step::MakeJob { .. } | Step::DropJob { .. } => {
                Vec::new()
            }
            Step::Download { node, .. }
            | Step::Upload { node, .. }
            | Step::MakeTemplate { node, .. }
            | Step::DropSeed { node, .. }
            | Step::DropTemplate { node, .. } => vec![node],
            Step::Clone { at, source, .. } => vec![&at.node, source],
            step => step.at().map(|at| at.node.as_str()).into_iter().collect(),
        }
    }
}
