//! Who is who: the document's machines beside the guests that are there.

use std::collections::{BTreeMap, BTreeSet};

use cluster_doc::spec::GuestKind;

use crate::mark::Mark;
use crate::seen::{Broken, Guest, Owner, Seen};
use crate::step::At;
use crate::template;
use crate::want::{Design, Machine};

/// What a machine of the document is at Proxmox.
#[derive(Clone, Debug)]
pub enum State<'s> {
    /// It is there.
    Ours(&'s Guest, Mark),
    /// It is there, but its Proxmox node is off.
    Silent(&'s Guest),
    /// It is not there; it gets this id.
    Missing(u32),
    /// It cannot be made, since the range of ids is used up.
    NoId,
}

/// Something that stands in a machine's way.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The machine's name.
    pub machine: String,
    /// What is there.
    pub why: String,
    /// What helps.
    pub hint: Option<String>,
    /// True when it is only that a Proxmox node is off.
    pub offline: bool,
}

/// The machines of the document with what they are, and what is there besides.
#[derive(Clone, Debug)]
pub struct Roster<'s> {
    /// In the document's order.
    pub machines: Vec<(&'s Machine, State<'s>)>,
    /// Our guests that the document does not have, by id.
    pub leaving: Vec<(&'s Guest, Mark)>,
    /// Those of them whose Proxmox node is off, so that only their tags tell whose they are.
    pub dark: Vec<&'s Guest>,
    /// What stands in the way.
    pub conflicts: Vec<Conflict>,
}

impl<'s> Roster<'s> {
    /// Sorts out who is who.
    pub fn of(design: &'s Design, seen: &'s Seen) -> Roster<'s> {
        let wanted: BTreeMap<&str, &Machine> = design.machines.iter().map(|m| (m.name.as_str(), m)).collect();
        let mut ours: BTreeMap<&str, (&Guest, Mark)> = BTreeMap::new();
        let mut silent: BTreeMap<&str, &Guest> = BTreeMap::new();
        let mut unknown: Vec<&Guest> = Vec::new();
        let (mut leaving, mut dark) = (Vec::new(), Vec::new());
        let mut others: Vec<&Guest> = Vec::new();
        for guest in &seen.guests {
            match guest.owner(&design.cluster) {
                Owner::Ours(mark) => match wanted.get(mark.machine.as_str()) {
                    Some(machine) => drop(ours.insert(&machine.name, (guest, mark))),
                    None => leaving.push((guest, mark)),
                },
                Owner::Silent(true) => match named(design, guest).map(|name| wanted.get(name)) {
                    Some(Some(machine)) => drop(silent.insert(&machine.name, guest)),
                    Some(None) => dark.push(guest),
                    None => unknown.push(guest),
                },
                Owner::Silent(false) | Owner::Foreign | Owner::Half(..) => others.push(guest),
            }
        }
        let mut roster = Roster { machines: Vec::new(), leaving, dark, conflicts: Vec::new() };
        let taken: BTreeSet<u32> = seen.guests.iter().filter(|g| uses(design, g)).map(|g| g.vmid).collect();
        let mut free =
            (0..).map_while(|n| design.vmids.nth(n)).map(|id| id.get()).filter(|id| !taken.contains(id));
        for machine in &design.machines {
            let name = machine.name.as_str();
            let state = match (ours.remove(name), silent.get(name)) {
                (Some((guest, mark)), _) => State::Ours(guest, mark),
                (None, Some(guest)) => State::Silent(guest),
                (None, None) => free.next().map_or(State::NoId, State::Missing),
            };
            let mut in_the_way = others.iter().filter(|g| !template::unfinished(design, g)).filter(|g| {
                let by_id = matches!(state, State::Missing(id) if id == g.vmid);
                by_id || g.name.as_deref() == Some(name)
            });
            if let Some(guest) = in_the_way.next() {
                roster.conflicts.push(conflict(design, seen, machine, guest));
            } else if let (State::Missing(_), Some(guest)) = (&state, unknown.first()) {
                roster.conflicts.push(Conflict {
                    machine: name.to_owned(),
                    why: format!(
                        "it may be guest {} on node {}, which is off and cannot be asked",
                        guest.vmid, guest.node
                    ),
                    hint: None,
                    offline: true,
                });
            }
            roster.machines.push((machine, state));
        }
        roster
    }

    /// The conflict of a machine.
    pub fn conflict(&self, machine: &str) -> Option<&Conflict> {
        self.conflicts.iter().find(|c| c.machine == machine)
    }
}

/// The machine that a guest of ours is, when only its id, tags and perhaps its name are known.
fn named<'d>(design: &'d Design, guest: &'d Guest) -> Option<&'d str> {
    let hint = design.hints.values().find(|h| h.vmid.is_some_and(|id| id.get() == guest.vmid));
    guest.name.as_deref().or(hint.map(|h| h.name.as_str()))
}

/// True when the guest's id is used by us: it is ours, or one of our templates.
fn uses(design: &Design, guest: &Guest) -> bool {
    let ours = matches!(guest.owner(&design.cluster), Owner::Ours(_) | Owner::Silent(true));
    ours || template::is_ours(design, guest) || template::unfinished(design, guest)
}

fn conflict(design: &Design, seen: &Seen, machine: &Machine, guest: &Guest) -> Conflict {
    let name = machine.name.clone();
    let (vmid, node) = (guest.vmid, guest.node.as_str());
    let what = match &guest.name {
        Some(name) => format!("guest {vmid} ({name}) on node {node}"),
        None => format!("guest {vmid} on node {node}"),
    };
    let off = seen.nodes.iter().find(|(_, node)| !node.online).map(|(name, _)| name);
    if let (true, None, Some(off)) = (node.is_empty(), &guest.broken, off) {
        return Conflict {
            machine: name,
            why: format!(
                "a guest with the id {vmid} that the login may not see is in its place; what node {off} would tell of \
                 it cannot be asked, it is off"
            ),
            hint: Some(format!("switch {off} on, then run again")),
            offline: true,
        };
    }
    if node.is_empty() {
        let (why, hint) = hidden(design, &name, machine.kind, vmid, guest.broken.as_ref());
        return Conflict { machine: name, why, hint: Some(hint), offline: false };
    }
    match guest.owner(&design.cluster) {
        Owner::Half(lock, _) => {
            let (why, hint) = half(&what, &lock, &At::of(&name, guest));
            Conflict { machine: name, why, hint: Some(hint), offline: false }
        }
        Owner::Silent(_) => Conflict {
            machine: name,
            why: format!("{what} has its id, and cannot be asked: the node is off"),
            hint: None,
            offline: true,
        },
        _ => Conflict {
            machine: name,
            why: format!("{what} is in its place and does not bear our mark; it was left untouched"),
            hint: Some(format!(
                "give the cluster ids of its own in spec.proxmox.vmids (now {}), or move that guest away",
                design.vmids
            )),
            offline: false,
        },
    }
}

/// What is told of a guest whose making never ended, and how root settles it: a token can neither unlock it nor
/// delete it with its lock (qemu-server, API2/Qemu.pm: `skiplock` is root's).
pub(crate) fn half(what: &str, lock: &str, at: &At) -> (String, String) {
    let (program, vmid) = (program(at.kind), at.vmid);
    (
        format!("{what} is locked ({lock}) by a clone that never ended"),
        format!("on node {}: {program} unlock {vmid} && {program} destroy {vmid}", at.node),
    )
}

/// What is told of a guest at a machine's id that is in no list of ours. A clone joins its pool last (qemu-server,
/// API2/Qemu.pm), so that one which broke off is hidden from a login whose rights come from the pool. Only root can
/// tell that from somebody's guest, and is told how.
pub(crate) fn hidden(
    design: &Design,
    machine: &str,
    kind: GuestKind,
    vmid: u32,
    broken: Option<&Broken>,
) -> (String, String) {
    let why = format!(
        "a guest with the id {vmid} that the login may not see is in its place; it was left untouched"
    );
    let Some(Broken { node, task }) = broken else {
        let hint = format!(
            "on a Proxmox node: grep . /etc/pve/nodes/*/*/{vmid}.conf shows it; then give the cluster ids of its \
             own in spec.proxmox.vmids (now {}), or move that guest away",
            design.vmids
        );
        return (why, hint);
    };
    let program = program(kind);
    (
        format!("{why}. It may be what the task {task} on node {node} left, which never ended"),
        format!(
            "on node {node}: {program} config {vmid}; where that shows lock: clone (or create) and no name but \
             {machine}, it is ours and empty: {program} unlock {vmid} && {program} destroy {vmid}"
        ),
    )
}

fn program(kind: GuestKind) -> &'static str {
    if kind.is_vm() { "qm" } else { "pct" }
}
