//! Makes a template of an image, or goes on where the making broke off.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster_doc::spec::GuestKind;
use stage::{Ctx, Failure};

use super::guest::{absent, config, free};
use super::persist::{Look, persist};
use crate::pve::{Error, Request};
use crate::roster::{half, hidden};
use crate::seen::Guest;
use crate::step::At;
use crate::template::made_of;
use crate::want::Design;
use crate::world::World;

/// Makes the machine with the imported disk, then the template of it.
pub async fn make(
    world: &World,
    design: &Design,
    ctx: &Ctx,
    vmid: u32,
    node: &str,
    options: &BTreeMap<String, String>,
    doing: &str,
) -> Result<(), Failure> {
    let machine = options.get("name").cloned().unwrap_or_default();
    let at = At { machine, vmid, node: node.to_owned(), kind: GuestKind::Vm };
    let mark = options.get("description").map(String::as_str).unwrap_or_default();
    // While it is made it has a lock, and before it is in the pool that our rights come from it cannot even be seen.
    // The task may have ended between two looks: only what is the same after that has been left.
    let idle = &AtomicBool::new(false);
    let left =
        || async move { matches!(world.makes(node).await, Ok(false)) && idle.swap(true, Ordering::Relaxed) };
    let made = || async {
        match config(world, &at).await {
            Ok(config) => match config.get("lock") {
                Some(lock) if left().await => {
                    let (why, hint) = half(&format!("guest {vmid} on node {node}"), lock, &at);
                    Ok(Look::Foreign(why, Some(hint)))
                }
                Some(_) => Err(locked(&at)),
                None if config.get("description").is_some_and(|d| d.trim_end() == mark) => Ok(Look::Done),
                None => {
                    let why = format!("guest {vmid} on node {node} is not ours; it was left untouched");
                    Ok(Look::Foreign(why, None))
                }
            },
            Err(error) if error.is_absent() => Ok(Look::NotYet),
            Err(error) if error.status() == Some(403) => match free(world, vmid).await? {
                true => Ok(Look::NotYet),
                false if left().await => {
                    let broken = world.broken(&[node.to_owned()], vmid, &[]).await;
                    let (why, hint) = hidden(design, &at.machine, at.kind, vmid, broken.as_ref());
                    Ok(Look::Foreign(why, Some(hint)))
                }
                false => Err(locked(&at)),
            },
            Err(error) => Err(error),
        }
    };
    let create = || async {
        if made().await? == Look::Done {
            return Ok(());
        }
        let request = Request::post(format!("/nodes/{node}/qemu")).with("vmid", vmid).with_all(options);
        world.client.run(ctx, &request).await
    };
    persist(world, ctx, doing, create, made).await?;
    let ready = || async {
        let config = config(world, &at).await?;
        let done = crate::options::on(&config, "template") && !config.contains_key("lock");
        Ok(if done { Look::Done } else { Look::NotYet })
    };
    let convert = || async {
        if ready().await? == Look::Done {
            return Ok(());
        }
        world.client.run(ctx, &Request::post(format!("/nodes/{node}/qemu/{vmid}/template"))).await
    };
    persist(world, ctx, doing, convert, ready).await
}

/// Deletes a template that bears our mark.
pub async fn drop(world: &World, ctx: &Ctx, design: &Design, at: &At, doing: &str) -> Result<(), Failure> {
    let options = config(world, at).await.map_err(|e| e.failure(doing, &world.client.grantee()))?;
    let guest = Guest { vmid: at.vmid, config: Some(options), kind: "qemu".to_owned(), ..Guest::default() };
    if made_of(design, &guest).is_none() {
        return Err(Failure::precondition(doing)
            .because(format!("{at} does not bear the mark of our template; it was left untouched")));
    }
    let request = Request::delete(format!("/nodes/{}/qemu/{}", at.node, at.vmid)).with("purge", 1);
    persist(world, ctx, doing, || world.client.run(ctx, &request), || absent(world, at)).await
}

fn locked(at: &At) -> Error {
    Error::Task {
        kind: "qmcreate".to_owned(),
        node: at.node.clone(),
        exit: format!("VM {} is locked (create)", at.vmid),
    }
}
