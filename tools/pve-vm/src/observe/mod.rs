//! Looks at Proxmox and at the machines, changing nothing.

mod guests;
mod node;
mod site;

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _};
use serde_json::Value;
use stage::{Ctx, Exit, Failure};

use self::guests::{concerns, fill, hidden, take};
use self::node::{claimed, node};
use self::site::{entries, job, pool};
use crate::mark::Mark;
use crate::options::Options;
use crate::pve::{Error, Request, flag, list, number, text};
use crate::seen::{Guest, Node, Owner, Seen, SshSeen};
use crate::ssh;
use crate::step::At;
use crate::want::Want;
use crate::world::World;

/// How often a look is begun anew because a guest moved meanwhile.
const LOOKS: usize = 3;

/// A guest moved or went while it was looked at.
struct Moved;

/// Everything that concerns us.
///
/// # Errors
/// Exit 4 for a login that is refused or a certificate that is not believed, 5 when Proxmox does not answer.
pub async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
    let mut suspects = BTreeSet::new();
    for _ in 0..LOOKS {
        if let Ok(seen) = look(world, want, ctx, &mut suspects).await? {
            return Ok(seen);
        }
    }
    Err(Failure::transient("cannot look at the guests")
        .because("they move between Proxmox nodes all the time"))
}

async fn get(world: &World, request: Request) -> Result<Value, Failure> {
    let line = request.line();
    let doing = || format!("cannot look at Proxmox ({line})");
    world.client.read(request).await.map_err(|e| failure(world, &e, doing()))
}

fn failure(world: &World, error: &Error, doing: String) -> Failure {
    let mut failure = error.failure(doing, &world.client.grantee());
    failure.causes.push(format!("asked: {}", world.endpoints.join(", ")));
    if let Error::Silent { why, .. } = error
        && why.contains("certificate")
    {
        failure.exit = Exit::Precondition;
        failure.hints = vec![
            "give the CA of Proxmox in spec.proxmox.caFile (on a node: /etc/pve/pve-root-ca.pem), or the \
             fingerprint in spec.proxmox.fingerprint"
                .to_owned(),
        ];
    }
    failure
}

/// An answer, or nothing where the login may not know.
fn allowed(result: Result<Value, Error>, world: &World, what: &str) -> Result<Option<Value>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.status() == Some(403) => Ok(None),
        Err(error) => Err(failure(world, &error, format!("cannot look at {what}"))),
    }
}

async fn look(
    world: &World,
    want: &Want,
    ctx: &Ctx,
    suspects: &mut BTreeSet<u32>,
) -> Result<Result<Seen, Moved>, Failure> {
    let design = &want.design;
    ctx.waiting(format!("the answers of Proxmox at {}", world.endpoints.join(", ")));
    let version = get(world, Request::get("/version")).await?;
    let (nodes, status, resources, privileges) = futures::join!(
        get(world, Request::get("/nodes")),
        world.client.read(Request::get("/cluster/status")),
        get(world, Request::get("/cluster/resources").with("type", "vm")),
        get(world, Request::get("/access/permissions")),
    );
    let status = allowed(status, world, "the state of the Proxmox cluster")?;
    quorate(status.as_ref())?;
    let mut seen = Seen { version: release(&version), ..Seen::default() };
    seen.privileges = serde_json::from_value(privileges?).unwrap_or_default();
    for node in list(&nodes?) {
        let Some(name) = text(node, "node") else { continue };
        let online = text(node, "status").as_deref() == Some("online") && !off(status.as_ref(), &name);
        if let Some(shown) = text(node, "ssl_fingerprint") {
            world.client.vouch(&shown);
        }
        let address = address(status.as_ref(), &name);
        let (memory, cores) = (number(node, "maxmem"), number(node, "maxcpu"));
        let used = number(node, "mem").unwrap_or(0);
        seen.nodes.insert(name, Node { online, address, memory, cores, used, ..Node::default() });
    }
    let mut guests: BTreeMap<u32, Guest> = BTreeMap::new();
    let resources = resources?;
    for guest in list(&resources) {
        take(&mut guests, guest, None);
    }
    let online: Vec<String> = seen.nodes.iter().filter(|(_, n)| n.online).map(|(n, _)| n.clone()).collect();
    let looks = online.into_iter().map(|name| async move {
        let result = node(world, design, &name).await;
        (name, result)
    });
    let looks: Vec<_> = stream::iter(looks).buffer_unordered(ctx.jobs()).collect().await;
    for (name, result) in looks {
        let Some(found) = seen.nodes.get_mut(&name) else { continue };
        match result {
            Ok((node, live)) => {
                let (memory, cores, used) = (found.memory, found.cores, found.used);
                *found = Node { memory, cores, used, address: found.address.take(), ..node };
                live.iter().for_each(|guest| take(&mut guests, guest, Some(&name)));
                let ours =
                    guests.values().filter(|g| g.node == name).map(|g| g.vmid).collect::<BTreeSet<_>>();
                let containers = list(&resources).iter().filter(|g| {
                    text(g, "type").as_deref() == Some("lxc")
                        && text(g, "node").as_deref() == Some(name.as_str())
                });
                (found.claimed, found.claimed_cores) = claimed(live.iter().chain(containers), &ours);
            }
            // It went off since the cluster was asked.
            Err(error) if error.is_transport() => found.online = false,
            Err(error) => return Err(failure(world, &error, format!("cannot look at node {name}"))),
        }
    }
    seen.pool = pool(world, design, seen.version).await?;
    (seen.job, seen.ha) = futures::try_join!(job(world, design), entries(world, design, seen.version))?;
    let names: BTreeSet<&str> = design.machines.iter().map(|m| m.name.as_str()).collect();
    let concerned = guests.into_values().filter(|g| concerns(design, &names, g));
    let configs = concerned.map(|guest| {
        let online = seen.nodes.get(&guest.node).is_some_and(|n| n.online);
        async move { if online { fill(world, design, guest, ctx).await } else { Ok(Ok(guest)) } }
    });
    let results: Vec<_> = stream::iter(configs).buffer_unordered(ctx.jobs()).collect().await;
    for result in results {
        match result? {
            Ok(guest) => {
                // A node that was on a moment ago and does not answer for its guest went off since.
                let off = guest.config.is_none().then(|| seen.nodes.get_mut(&guest.node)).flatten();
                off.into_iter().for_each(|node| node.online = false);
                seen.guests.push(guest);
            }
            Err(Moved) => return Ok(Err(Moved)),
        }
    }
    seen.guests.sort_by_key(|g| g.vmid);
    if let Err(Moved) = hidden(world, design, ctx, &mut seen, suspects).await? {
        return Ok(Err(Moved));
    }
    answers(world, want, ctx, &mut seen).await;
    crate::image::observe(want, &mut seen).await?;
    Ok(Ok(seen))
}

fn release(version: &Value) -> (u32, u32) {
    let text = text(version, "version").or_else(|| text(version, "release")).unwrap_or_default();
    let mut parts = text.split(['.', '-']).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

fn quorate(status: Option<&Value>) -> Result<(), Failure> {
    let cluster =
        status.map(list).unwrap_or_default().iter().find(|e| text(e, "type").as_deref() == Some("cluster"));
    match cluster {
        Some(cluster) if !flag(cluster, "quorate") => {
            Err(Failure::transient("the Proxmox cluster cannot be changed")
                .because("it has no quorum: more than half of its nodes are off or cut off")
                .hint("on a node: pvecm status"))
        }
        _ => Ok(()),
    }
}

/// What the state of the cluster says of a node.
fn told<'s>(status: Option<&'s Value>, name: &str) -> Option<&'s Value> {
    let mut entries = status.map(list).unwrap_or_default().iter();
    entries.find(|e| text(e, "type").as_deref() == Some("node") && text(e, "name").as_deref() == Some(name))
}

fn off(status: Option<&Value>, name: &str) -> bool {
    told(status, name).is_some_and(|e| !flag(e, "online"))
}

fn address(status: Option<&Value>, name: &str) -> Option<String> {
    text(told(status, name)?, "ip").filter(|ip| !ip.is_empty())
}

/// A guest's options as text.
pub fn options(config: &Value) -> Options {
    let keys = config.as_object().into_iter().flatten().map(|(k, _)| k).filter(|k| *k != "digest");
    keys.filter_map(|key| text(config, key).map(|value| (key.clone(), value))).collect()
}

/// Asks every running machine of ours whose host key is known, side by side.
async fn answers(world: &World, want: &Want, ctx: &Ctx, seen: &mut Seen) {
    let _ = world;
    let asked = seen.guests.iter().enumerate().filter_map(|(n, guest)| {
        let Owner::Ours(mark) = guest.owner(&want.design.cluster) else { return None };
        let address = ssh::address(guest)?;
        let at = At::of(&mark.machine, guest);
        (guest.running && !mark.host_keys.is_empty()).then_some((n, at, mark, address))
    });
    let asked: Vec<(usize, At, Mark, std::net::Ipv4Addr)> = asked.collect();
    let asking = asked.into_iter().map(|(n, at, mark, address)| async move {
        let answer = ssh::ask(want, &at, address, &mark.host_keys).await;
        (
            n,
            match answer {
                ssh::Answer::Yes => SshSeen::Answers,
                ssh::Answer::Silent(why) => SshSeen::Silent(why),
                ssh::Answer::WrongKey(why, hint) | ssh::Answer::NotLetIn(why, hint) => {
                    SshSeen::Refuses(why, hint)
                }
            },
        )
    });
    let answers: Vec<_> = stream::iter(asking).buffer_unordered(ctx.jobs()).collect().await;
    for (n, answer) in answers {
        if let Some(guest) = seen.guests.get_mut(n) {
            guest.ssh = Some(answer);
        }
    }
}
