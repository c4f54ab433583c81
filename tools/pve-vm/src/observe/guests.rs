//! Guests: those that concern us, with their options, and those that no list tells of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use serde_json::Value;
use stage::{Ctx, Failure, Waiting};

use super::{Moved, failure, options};
use crate::options::{Options, tags};
use crate::pve::{Class, Request, flag, list, number, text};
use crate::roster::{Roster, State};
use crate::seen::{Guest, Owner, Seen};
use crate::template;
use crate::want::Design;
use crate::world::World;

/// How long a clone that somebody is making may take until we go on.
const CLONING: Duration = Duration::from_secs(1800);

/// Takes over what a list says of a guest; the list of its own node is fresher than the cluster's.
pub(super) fn take(guests: &mut BTreeMap<u32, Guest>, entry: &Value, live: Option<&str>) {
    let Some(vmid) = number(entry, "vmid").and_then(|id| u32::try_from(id).ok()) else { return };
    let guest =
        guests.entry(vmid).or_insert_with(|| Guest { vmid, kind: "qemu".to_owned(), ..Guest::default() });
    if let Some(kind) = text(entry, "type").filter(|k| k == "qemu" || k == "lxc") {
        guest.kind = kind;
    }
    if let Some(node) = live.map(str::to_owned).or_else(|| text(entry, "node")) {
        guest.node = node;
    }
    guest.name = text(entry, "name").or(guest.name.take());
    if let Some(tags) = text(entry, "tags") {
        guest.tags = tags;
    }
    guest.pool = text(entry, "pool").or(guest.pool.take());
    guest.running = text(entry, "status").as_deref() == Some("running");
    guest.uptime = number(entry, "uptime").unwrap_or(0);
}

pub(super) fn concerns(design: &Design, names: &BTreeSet<&str>, guest: &Guest) -> bool {
    let id = cluster_doc::VmId::new(guest.vmid).is_some_and(|id| design.vmids.contains(id));
    let name = guest.name.as_deref().is_some_and(|n| names.contains(n) || n == design.template);
    let tags = tags(&guest.tags);
    id || name || (tags.contains("pve-vm") && tags.contains(&design.cluster.to_lowercase()))
}

pub(super) async fn fill(
    world: &World,
    design: &Design,
    mut guest: Guest,
    ctx: &Ctx,
) -> Result<Result<Guest, Moved>, Failure> {
    let path = format!("/nodes/{}/{}/{}", guest.node, guest.kind, guest.vmid);
    let read = || world.client.read(Request::get(format!("{path}/config")));
    let mut config = match read().await {
        Ok(config) => options(&config),
        Err(error) if error.is_absent() => return Ok(Err(Moved)),
        // What we may not read is somebody else's.
        Err(error) if error.status() == Some(403) => Options::new(),
        Err(error) if error.is_transport() => return Ok(Ok(guest)),
        Err(error) => return Err(failure(world, &error, format!("cannot look at guest {}", guest.vmid))),
    };
    if config.get("lock").is_some_and(|l| l == "clone" || l == "create") {
        let what = format!("the clone to {} on node {}", guest.vmid, guest.node);
        let ended = ctx.wait_for(&what, CLONING, || async {
            if !world.makes(&guest.node).await.unwrap_or(false) {
                return Ok(Waiting::Seen(()));
            }
            match read().await {
                Ok(config) if text(&config, "lock").is_some() => {
                    Ok(Waiting::NotYet("it is locked".to_owned()))
                }
                _ => Ok(Waiting::Seen(())),
            }
        });
        ended.await?;
        config = match read().await {
            Ok(config) => options(&config),
            Err(_) => return Ok(Err(Moved)),
        };
    }
    if let Some(name) = config.get("name").or_else(|| config.get("hostname")) {
        guest.name = Some(name.clone());
    }
    guest.config = Some(config);
    if guest.running && matches!(guest.owner(&design.cluster), Owner::Ours(_)) {
        let pending = world.client.read(Request::get(format!("{path}/pending"))).await;
        let pending = match pending {
            Ok(pending) => pending,
            Err(error) if error.is_absent() => return Ok(Err(Moved)),
            Err(error) if error.is_transport() => return Ok(Ok(Guest { config: None, ..guest })),
            Err(error) => return Err(failure(world, &error, format!("cannot look at guest {}", guest.vmid))),
        };
        let waits = |entry: &&Value| entry.get("pending").is_some() || flag(entry, "delete");
        guest.pending = list(&pending).iter().filter(waits).filter_map(|e| text(e, "key")).collect();
    }
    Ok(Ok(guest))
}

/// Looks whether the ids of machines that are to be made are free: a guest that the login may not see, or a clone
/// of ours that has not joined its pool yet, is in no list. What is found twice is somebody else's.
pub(super) async fn hidden(
    world: &World,
    design: &Design,
    ctx: &Ctx,
    seen: &mut Seen,
    suspects: &mut BTreeSet<u32>,
) -> Result<Result<(), Moved>, Failure> {
    let roster = Roster::of(design, seen);
    let missing = roster.machines.iter().filter_map(|(machine, state)| match state {
        State::Missing(id) if roster.conflict(&machine.name).is_none() => Some(*id),
        _ => None,
    });
    let asking = missing.collect::<Vec<_>>().into_iter().map(|id| async move {
        let result = world.client.read(Request::get("/cluster/nextid").with("vmid", id)).await;
        (id, result)
    });
    let asked: Vec<_> = stream::iter(asking).buffer_unordered(ctx.jobs()).collect().await;
    let mut taken = Vec::new();
    for (id, result) in asked {
        match result {
            Ok(_) => {}
            Err(error) if error.class() == Class::Exists => taken.push(id),
            Err(error) => {
                return Err(failure(world, &error, format!("cannot see whether the id {id} is free")));
            }
        }
    }
    let online: Vec<String> = seen.nodes.iter().filter(|(_, n)| n.online).map(|(n, _)| n.clone()).collect();
    let templates: Vec<u32> =
        seen.guests.iter().filter(|g| template::is_ours(design, g)).map(|g| g.vmid).collect();
    let mut again = false;
    for id in taken {
        if suspects.insert(id) {
            again = true;
            continue;
        }
        let broken = world.broken(&online, id, &templates).await;
        let (kind, config) = ("qemu".to_owned(), Some(Options::new()));
        seen.guests.push(Guest { vmid: id, kind, config, broken, ..Guest::default() });
    }
    if again {
        ctx.wait_for("clones that are being made", CLONING, || async {
            for node in &online {
                if world.makes(node).await.unwrap_or(false) {
                    return Ok(Waiting::NotYet(format!("one runs on node {node}")));
                }
            }
            Ok(Waiting::Seen(()))
        })
        .await?;
        return Ok(Err(Moved));
    }
    seen.guests.sort_by_key(|g| g.vmid);
    Ok(Ok(()))
}
