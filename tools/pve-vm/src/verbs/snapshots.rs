//! Snapshots of all machines of a pool, side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, StreamExt as _};
use stage::{Consent, Ctx, Exit, Failure, Own};

use crate::PveVmTool;
use crate::apply::{Look, persist};
use crate::pve::{Error, Request, list, text};
use crate::roster::{Roster, State};
use crate::seen::Seen;
use crate::step::At;
use crate::want::Design;
use crate::world::World;

/// How many snapshots are taken at once: each stops its machine for a moment.
const SIDE_BY_SIDE: usize = 4;

/// Takes one of each machine.
pub(super) fn take(design: &Design, pool: String, name: String) -> Result<Own<PveVmTool>, Failure> {
    known(design, &pool)?;
    named(&name)?;
    let (of, called) = (pool.clone(), name.clone());
    Ok(Own::Once {
        consent: None,
        intent: Box::new(move |want, seen| {
            let all = members(&want.design, seen, &of)?;
            Ok(format!("pve-vm: takes the snapshot {called} of {}\n", told(&all)))
        }),
        run: Box::new(move |world, want, seen, ctx| {
            Box::pin(async move {
                let all = members(&want.design, seen, &pool)?;
                each(ctx, &all, |at| snapshot(world, ctx, at, &name)).await?;
                Ok(format!("the snapshot {name} is taken of {}\n", told(&all)))
            })
        }),
    })
}

/// Sets each machine back; one that runs is started again.
pub(super) fn roll_back(
    design: &Design,
    pool: String,
    name: String,
    consent: Consent,
) -> Result<Own<PveVmTool>, Failure> {
    known(design, &pool)?;
    named(&name)?;
    let (of, called) = (pool.clone(), name.clone());
    Ok(Own::Once {
        consent: Some(consent),
        intent: Box::new(move |want, seen| {
            let all = members(&want.design, seen, &of)?;
            Ok(format!(
                "pve-vm: sets {} back to the snapshot {called}; what they wrote since then is lost\n",
                told(&all)
            ))
        }),
        run: Box::new(move |world, want, seen, ctx| {
            Box::pin(async move {
                let all = members(&want.design, seen, &pool)?;
                // Nothing is set back unless everything can be.
                each(ctx, &all, |at| has(world, at, &name)).await?;
                each(ctx, &all, |at| back(world, ctx, at, &name)).await?;
                Ok(format!("{} are set back to the snapshot {name}\n", told(&all)))
            })
        }),
    })
}

/// Lists them.
pub(super) fn listing(design: &Design, pool: Option<String>) -> Result<Own<PveVmTool>, Failure> {
    if let Some(pool) = &pool {
        known(design, pool)?;
    }
    Ok(Own::Once {
        consent: None,
        intent: Box::new(|_, _| Ok(String::new())),
        run: Box::new(move |world, want, seen, ctx| {
            Box::pin(async move {
                let pools: BTreeSet<String> = match pool {
                    Some(pool) => [pool].into(),
                    None => want.design.machines.iter().map(|m| m.pool.clone()).collect(),
                };
                let mut all = Vec::new();
                for pool in &pools {
                    all.extend(members(&want.design, seen, pool)?);
                }
                let told = Mutex::new(BTreeMap::new());
                each(ctx, &all, |at| {
                    let told = &told;
                    async move {
                        let doing = format!("cannot list the snapshots of {at}");
                        let names =
                            names(world, &at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
                        told.lock().unwrap_or_else(PoisonError::into_inner).insert(at.machine, names);
                        Ok(())
                    }
                })
                .await?;
                let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
                let line = |(machine, names): (String, Vec<String>)| match names.is_empty() {
                    true => format!("{machine}: none\n"),
                    false => format!("{machine}: {}\n", names.join(", ")),
                };
                Ok(told.into_iter().map(line).collect())
            })
        }),
    })
}

fn known(design: &Design, pool: &str) -> Result<(), Failure> {
    if design.machines.iter().any(|m| m.pool == pool) {
        return Ok(());
    }
    let mut all: Vec<&str> = design.machines.iter().map(|m| m.pool.as_str()).collect();
    all.dedup();
    Err(Failure::new(Exit::Refused, format!("the document has no pool {pool} with machines"))
        .because(format!("it has {}", all.join(", "))))
}

/// A name as Proxmox takes it (pve-configid, 40 letters at most); `current` is its own word.
fn named(name: &str) -> Result<(), Failure> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let good = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if first && good && (2..=40).contains(&name.len()) && !["current", "pending"].contains(&name) {
        return Ok(());
    }
    let why =
        "use 2 to 40 letters, digits, - and _, beginning with a letter, and neither current nor pending";
    Err(Failure::new(Exit::Usage, format!("\"{name}\" is no name for a snapshot")).because(why))
}

/// The machines of a pool that are there and can be asked.
fn members(design: &Design, seen: &Seen, pool: &str) -> Result<Vec<At>, Failure> {
    let roster = Roster::of(design, seen);
    let mut all = Vec::new();
    for (machine, state) in roster.machines.iter().filter(|(m, _)| m.pool == pool) {
        match state {
            State::Ours(guest, _) => {
                all.push(At::of(&machine.name, guest));
            }
            State::Silent(guest) => {
                return Err(Failure::transient(format!("cannot reach {}", machine.name))
                    .because(format!("its Proxmox node {} is off", guest.node))
                    .hint(format!("switch {} on, then run again", guest.node)));
            }
            State::Missing(_) | State::NoId => {
                return Err(
                    Failure::precondition(format!("there is no {}", machine.name)).hint("pve-vm apply")
                );
            }
        }
    }
    Ok(all)
}

fn told(all: &[At]) -> String {
    all.iter().map(|at| at.machine.as_str()).collect::<Vec<_>>().join(", ")
}

async fn each<F, R>(ctx: &Ctx, all: &[At], act: F) -> Result<(), Failure>
where
    F: Fn(At) -> R,
    R: Future<Output = Result<(), Failure>>,
{
    let at_once = SIDE_BY_SIDE.min(ctx.jobs());
    let results: Vec<_> =
        stream::iter(all.iter().cloned().map(act)).buffer_unordered(at_once).collect().await;
    results.into_iter().collect()
}

fn path(at: &At) -> String {
    format!("{}/snapshot", at.path())
}

async fn names(world: &World, at: &At) -> Result<Vec<String>, Error> {
    let all = world.client.read(Request::get(path(at))).await?;
    // The present state stands in the list as well.
    Ok(list(&all).iter().filter_map(|s| text(s, "name")).filter(|n| n != "current").collect())
}

async fn snapshot(world: &World, ctx: &Ctx, at: At, name: &str) -> Result<(), Failure> {
    let doing = format!("cannot take the snapshot {name} of {at}");
    let request = Request::post(path(&at)).with("snapname", name).with("description", "taken by pve-vm");
    let look = || async {
        let there = names(world, &at).await?.iter().any(|n| n == name);
        Ok(if there { Look::Done } else { Look::NotYet })
    };
    persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
}

async fn has(world: &World, at: At, name: &str) -> Result<(), Failure> {
    let doing = format!("cannot set {at} back");
    let all = names(world, &at).await.map_err(|e| e.failure(&doing, &world.client.grantee()))?;
    if all.iter().any(|n| n == name) {
        return Ok(());
    }
    Err(Failure::precondition(doing).because(format!("it has no snapshot {name}")).hint("pve-vm snapshots"))
}

async fn back(world: &World, ctx: &Ctx, at: At, name: &str) -> Result<(), Failure> {
    let doing = format!("cannot set {at} back to {name}");
    let status = Request::get(crate::apply::status(&at, "current"));
    let running = world.client.read(status).await.map_err(|e| e.failure(&doing, &world.client.grantee()))?;
    let running = text(&running, "status").as_deref() == Some("running");
    let request = Request::post(format!("{}/{name}/rollback", path(&at))).with("start", u8::from(running));
    // Setting back twice is the same; whether it was done cannot be seen.
    let look = || async { Ok(Look::NotYet) };
    persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
}
