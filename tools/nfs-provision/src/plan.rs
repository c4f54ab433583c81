//! What is to be done, and why: pure.

use std::fmt;

use addon::View;
use serde::{Deserialize, Serialize};
use stage::{HeldKind, Plan, StepId};

use crate::exports;
use crate::fstab;
use crate::seen::{DiskSeen, Found, ServerSeen};
use crate::want::{Disk, Server, Want};

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "the variant says it")]
pub enum Step {
    /// Installs a package.
    Install { machine: String, package: String },
    /// Makes a file system on a blank disk.
    Format { machine: String, device: String, label: String },
    /// Mounts a file system, now and at boot.
    Mount { machine: String, source: String, fstype: String, mount: String },
    /// Makes a folder, with its mode and owner.
    Folder { machine: String, path: String, mode: u32 },
    /// Puts our file of exports in place and has it read.
    Export { machine: String, exports: String },
    /// Removes our file of exports and has that read.
    Unexport { machine: String },
    /// Starts the NFS server, now and at boot.
    Start { machine: String },
    /// A step in the cluster.
    Cluster { step: addon::Step },
}

impl addon::Change for Step {
    fn in_cluster(&self) -> Option<&addon::Step> {
        match self {
            Step::Cluster { step } => Some(step),
            _ => None,
        }
    }

    fn machine(&self) -> Option<&str> {
        match self {
            Step::Install { machine, .. }
            | Step::Format { machine, .. }
            | Step::Mount { machine, .. }
            | Step::Folder { machine, .. }
            | Step::Export { machine, .. }
            | Step::Unexport { machine }
            | Step::Start { machine } => Some(machine),
            Step::Cluster { .. } => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Install { machine, package } => write!(f, "install {package} on {machine}"),
            Step::Format { machine, device, label } => {
                write!(f, "make the file system {label} on {device} of {machine}")
            }
            Step::Mount { machine, source, mount, .. } => write!(f, "mount {source} at {mount} on {machine}"),
            Step::Folder { machine, path, .. } => write!(f, "make the folder {path} on {machine}"),
            Step::Export { machine, .. } => write!(f, "export from {machine}"),
            Step::Unexport { machine } => write!(f, "end the exports of {machine}"),
            Step::Start { machine } => write!(f, "start the NFS server on {machine}"),
            Step::Cluster { step } => step.fmt(f),
        }
    }
}

impl From<addon::Step> for Step {
    fn from(step: addon::Step) -> Step {
        Step::Cluster { step }
    }
}

pub(crate) fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
    let mut plan = Plan::new();
    let mut lost = seen.cluster.lost.clone();
    lost.extend(seen.beside.unreachable.clone());
    let mut done: Vec<StepId> = Vec::new();
    for name in &want.clients {
        if let Some(None) = seen.beside.clients.get(name) {
            let step = Step::Install { machine: name.clone(), package: "nfs-common".to_owned() };
            done.push(plan.step(step, "without it the machine cannot mount"));
        }
    }
    let ready = match (&want.server, &seen.beside.server) {
        (Some(server), Some(found)) => serve(&mut plan, server, found, &mut done),
        (Some(server), None) => {
            lost.entry(server.name.clone()).or_insert_with(|| "it does not answer".to_owned());
            false
        }
        (None, _) => true,
    };
    // A provisioner cannot start before its export can be mounted.
    if ready && !want.addon.is_empty() {
        addon::plan(&mut plan, &want.addon, &seen.cluster, &want.access, &done, Step::from);
    }
    for (name, why) in lost {
        plan.hold(HeldKind::Unreachable, name, why, None);
    }
    plan
}

/// What the NFS machine needs; false when something is in the way.
fn serve(plan: &mut Plan<Step>, server: &Server, seen: &ServerSeen, done: &mut Vec<StepId>) -> bool {
    let machine = server.name.clone();
    let mut ready = true;
    if seen.unit.is_masked() {
        let hint = format!("ssh {machine}, then: systemctl unmask nfs-server");
        plan.hold(
            HeldKind::Unmet,
            &machine,
            "nfs-server is masked: somebody forbade it to start",
            Some(hint),
        );
        ready = false;
    }
    if seen.exports_file.as_ref().is_some_and(|text| !text.starts_with(exports::HEADER)) {
        let hint = format!("ssh {machine}, then: mv {} /etc/exports.d/own.exports", exports::PATH);
        plan.hold(HeldKind::Unmet, &machine, format!("{} is not ours", exports::PATH), Some(hint));
        ready = false;
    }
    let mut mounts = Vec::new();
    for disk in &server.disks {
        match mount(plan, &machine, disk, seen) {
            Ok(steps) => mounts.extend(steps),
            Err((why, hint)) => {
                plan.hold(HeldKind::Unmet, format!("disk {} of {machine}", disk.name), why, hint);
                ready = false;
            }
        }
    }
    if !ready {
        return false;
    }
    let mut before = mounts;
    if seen.package.is_none() {
        let step = Step::Install { machine: machine.clone(), package: "nfs-kernel-server".to_owned() };
        before.push(plan.step(step, "it is not installed"));
    }
    // What lies below a mount point that is still bare is not what will be there.
    let mounted = !plan.steps().any(|step| matches!(step, Step::Mount { .. }));
    let mut folders = before.clone();
    for export in &server.exports {
        let wanted = format!("{:o} root:root", export.mode);
        let found = seen.folders.get(&export.path).filter(|_| mounted || export.mount.is_none());
        if found != Some(&wanted) {
            let why = found
                .map_or("it does not exist".to_owned(), |found| format!("it is {found}, wanted is {wanted}"));
            let step =
                Step::Folder { machine: machine.clone(), path: export.path.clone(), mode: export.mode };
            folders.push(plan.step_after(&before, step, why));
        }
    }
    let mut last = folders;
    let lacking = exports::lacking(&server.exports, &seen.exports);
    let why = match &seen.exports_file {
        None => Some(format!("{} does not exist", exports::PATH)),
        Some(text) if *text != server.exports_file => Some("the exports change".to_owned()),
        Some(_) if !lacking.is_empty() && seen.unit.is_active() => {
            Some(format!("not in force: {}", lacking.join(", ")))
        }
        Some(_) => None,
    };
    if let Some(why) = why {
        let step = Step::Export { machine: machine.clone(), exports: server.exports_file.clone() };
        last.push(plan.step_after(&last.clone(), step, why));
    }
    if !(seen.unit.is_active() && seen.unit.is_enabled()) {
        let why = if seen.unit.is_active() { "it does not start at boot" } else { "it does not run" };
        last.push(plan.step_after(&last.clone(), Step::Start { machine }, why));
    }
    done.extend(last);
    true
}

/// The steps that mount a disk, or why it must not be touched and what helps.
fn mount(
    plan: &mut Plan<Step>,
    machine: &str,
    disk: &Disk,
    seen: &ServerSeen,
) -> Result<Vec<StepId>, (String, Option<String>)> {
    let serial = |found: &&DiskSeen, wanted: &str| found.serial.as_deref() == Some(wanted);
    let by = |wanted: &str| seen.disks.iter().find(|found| serial(found, wanted));
    let Some(found) = by(&disk.name).or_else(|| by(&disk.place)) else {
        let why = format!("the machine has no disk with the serial number {}", disk.name);
        return Err((why, Some("pve-vm plan says whether it is still to be attached".to_owned())));
    };
    let at: Vec<&str> = found.mountpoints.iter().flatten().map(String::as_str).collect();
    let in_table = fstab::source_of(&seen.fstab, &disk.mount);
    if at.contains(&disk.mount.as_str()) && in_table.is_some() {
        return Ok(Vec::new());
    }
    let other = seen
        .disks
        .iter()
        .find(|d| d.name != found.name && d.mountpoints.iter().flatten().any(|mount| *mount == disk.mount));
    if let Some(other) = other {
        return Err((format!("{} is mounted at {} already", other.name, disk.mount), None));
    }
    if let Some(elsewhere) = at.iter().find(|mount| **mount != disk.mount) {
        return Err((
            format!("{} is mounted at {elsewhere}", found.name),
            Some(format!("umount {elsewhere}")),
        ));
    }
    if !found.children.is_empty() {
        return Err((format!("{} has partitions: it is not ours to use", found.name), None));
    }
    let label = disk.label().to_owned();
    let by_label = format!("LABEL={label}");
    let (source, fstype, format) = match found.fstype.as_deref() {
        None => (by_label, "ext4", true),
        Some(fstype @ ("ext4" | "xfs")) if found.label.as_deref() == Some(&label) => {
            (by_label, fstype, false)
        }
        Some(fstype @ ("ext4" | "xfs")) => match &found.uuid {
            Some(uuid) => (format!("UUID={uuid}"), fstype, false),
            None => return Err((format!("{} holds {fstype} without a UUID", found.name), None)),
        },
        Some(other) => {
            let hint = format!(
                "look at what it holds; when it may go: ssh {machine}, then: wipefs -a {}",
                found.name
            );
            return Err((format!("{} holds {other}, and is never formatted", found.name), Some(hint)));
        }
    };
    let mut before = Vec::new();
    if format {
        let step = Step::Format { machine: machine.to_owned(), device: found.name.clone(), label };
        before.push(plan.step(
            step,
            format!(
                "the disk with the serial number {} is blank",
                found.serial.as_deref().unwrap_or_default()
            ),
        ));
    }
    let why = if at.is_empty() { "it is not mounted" } else { "it is not mounted at boot" };
    let source = in_table.map_or(source, str::to_owned);
    let step = Step::Mount {
        machine: machine.to_owned(),
        source,
        fstype: fstype.to_owned(),
        mount: disk.mount.clone(),
    };
    Ok(vec![plan.step_after(&before, step, why)])
}

pub(crate) fn teardown(want: &Want, seen: &View<Found>) -> Plan<Step> {
    let mut plan = Plan::new();
    let last = addon::teardown(&mut plan, &want.addon, &seen.cluster, &want.access, Step::from);
    let Some(server) = &want.server else { return plan };
    let ours = seen.beside.server.as_ref().and_then(|found| found.exports_file.as_ref());
    if ours.is_some_and(|text| text.starts_with(exports::HEADER)) {
        plan.step_after(&last, Step::Unexport { machine: server.name.clone() }, "destroy was asked for");
    }
    if seen.beside.server.is_none() {
        let why = seen.beside.unreachable.get(&server.name).map_or("it does not answer", String::as_str);
        plan.hold(HeldKind::Unreachable, &server.name, why, None);
    }
    plan
}
