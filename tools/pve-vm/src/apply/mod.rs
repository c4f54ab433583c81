//! Does one step and waits until it is seen. No choice is made here: a step carries all it needs.

mod container;
mod guest;
mod ha;
mod note;
mod off;
mod persist;
mod ready;
mod renew;
mod seed;
mod template;

use std::collections::BTreeMap;

use cluster_doc::spec::GuestKind;
use futures::future::{Either, select};
use stage::{Ctx, Exit, Failure};

use crate::pve::{Content, Request, Upload, list, text};
use crate::step::{At, Step};
use crate::want::Want;
use crate::world::World;

pub(crate) use guest::status;
pub(crate) use persist::{Look, persist};

/// Does the step. When its Proxmox node goes off meanwhile, nobody waits for what cannot come.
///
/// # Errors
/// What went wrong, with the exit that it means.
pub async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let nodes = step.nodes();
    // On the heap: without optimisation a stack of two megabytes would not hold it several times over.
    let work = Box::pin(work(step, world, want, ctx));
    let lost = std::pin::pin!(world.lost(&nodes));
    let (failure, node) = match select(work, lost).await {
        Either::Left((Ok(()), _)) => return Ok(()),
        Either::Left((Err(failure), _)) if failure.exit != Exit::Transient || nodes.is_empty() => {
            return Err(failure);
        }
        Either::Left((Err(failure), _)) => match world.off(&nodes).await {
            None => return Err(failure),
            Some(node) => (failure, node),
        },
        Either::Right((node, _)) => (Failure::transient(format!("cannot {step}")), node),
    };
    let mut failure = failure.because(format!("the Proxmox node {node} went off meanwhile")).confined();
    failure.hints = vec![format!("switch {node} on, then run again")];
    Err(failure)
}

async fn work(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = format!("cannot {step}");
    let _room = match step {
        Step::Configure { at, .. }
        | Step::Resize { at, .. }
        | Step::Renew { at, .. }
        | Step::Seed { at, .. }
        | Step::Start { at }
        | Step::Restart { at }
        | Step::Stop { at }
        | Step::Destroy { at } => world.room(&at.node).await,
        Step::DropSeed { node, .. } | Step::DropTemplate { node, .. } => world.room(node).await,
        _ => None,
    };
    match step {
        Step::MakePool { pool, comment } => {
            let request = Request::post("/pools").with("poolid", pool).with("comment", comment);
            let look = || pool_is(world, pool, Look::Done, Look::NotYet);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::DropPool { pool } => {
            let request = Request::delete("/pools").with("poolid", pool);
            let look = || pool_is(world, pool, Look::NotYet, Look::Done);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::Download { node, storage, content, url, file, algorithm, digest } => {
            // With a digest, a file that is there already and right is no error (pve-common, Tools.pm).
            let request = Request::post(format!("/nodes/{node}/storage/{storage}/download-url"))
                .with("content", content)
                .with("url", url)
                .with("filename", file)
                .with("checksum-algorithm", algorithm)
                .with("checksum", digest);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), || async { Ok(Look::NotYet) })
                .await
        }
        Step::Upload { node, address, storage, from, file, algorithm, digest } => {
            let path = want.site.absolute(std::path::Path::new(from));
            let request = Request::post(format!("/nodes/{node}/storage/{storage}/upload"))
                .with("content", "import")
                .with("checksum-algorithm", algorithm)
                .with("checksum", digest)
                .with_upload(Upload { name: file.clone(), content: Content::File(path) })
                .asked_at(address.as_deref().map(|a| world.client.base_at(a)));
            // Sending it again is sending the same.
            persist(world, ctx, &doing, || world.client.run(ctx, &request), || async { Ok(Look::NotYet) })
                .await
        }
        Step::HaSet { entry, id, set, there } => ha::set(world, ctx, *entry, id, set, *there, &doing).await,
        Step::HaDrop { entry, id } => ha::drop(world, ctx, *entry, id, &doing).await,
        Step::MakeJob { id, set, there } => {
            let request = match there {
                true => Request::put(format!("/cluster/backup/{id}")),
                false => Request::post("/cluster/backup").with("id", id),
            };
            let request = request.with_all(set);
            let look = || job_is(world, want, id, Some(set));
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::DropJob { id } => {
            let request = Request::delete(format!("/cluster/backup/{id}"));
            let look = || job_is(world, want, id, None);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::MakeTemplate { vmid, node, options, .. } => {
            template::make(world, &want.design, ctx, *vmid, node, options, &doing).await
        }
        Step::Clone { at, template, source, full, pool, description } => {
            let mut request = Request::post(format!("/nodes/{source}/qemu/{template}/clone"))
                .with("newid", at.vmid)
                .with("name", &at.machine)
                .with("description", description)
                .with("full", u8::from(full.is_some()));
            for (field, value) in [("pool", pool), ("storage", full)] {
                if let Some(value) = value {
                    request = request.with(field, value);
                }
            }
            if *source != at.node {
                request = request.with("target", &at.node);
            }
            let look = || guest::cloned(world, ctx, at, &want.design, Some(*template));
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::MakeContainer { at, options, pool } => {
            container::make(world, want, ctx, at, options, pool.as_ref(), &doing).await
        }
        Step::Note { at, tags } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            container::note(world, ctx, at, tags, &doing).await
        }
        Step::Pin { at, address } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            container::pin(world, want, ctx, at, *address, &doing).await
        }
        Step::Join { at, pool } => {
            let request =
                Request::put("/pools").with("poolid", pool).with("vms", at.vmid).with("allow-move", 1);
            let look = || guest::in_pool(world, at, pool);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::Configure { at, set, net, delete } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            let attempt = || guest::configure(world, ctx, at, set, net.as_ref(), delete);
            let look = || async { Ok(Look::NotYet) };
            persist(world, ctx, &doing, attempt, look).await
        }
        Step::Resize { at, disk, gib } => {
            let request = Request::put(format!("{}/resize", at.path()))
                .with("disk", disk)
                .with("size", format!("{gib}G"));
            let look = || guest::sized(world, at, disk, *gib);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
        Step::Renew { at, lost, drive } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            renew::renew(world, ctx, at, lost, drive, &doing).await
        }
        Step::Start { at } => guest::start(world, ctx, at, &doing).await,
        Step::Seed { at, address, storage, file, slot, before, boot } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            let place = seed::Place { at, address: address.as_deref(), storage, file, slot };
            seed::plant(world, want, ctx, &place, before, boot, &doing).await
        }
        Step::Ready { at, address } => ready::ready(world, want, ctx, at, *address, &doing).await,
        Step::Seal { at, address } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            seed::finished(world, want, ctx, at, *address, &doing).await?;
            let _room = world.room(&at.node).await;
            match seed::eject(world, want, ctx, at, &doing).await? {
                Some((storage, file)) => seed::delete(world, ctx, &at.node, &storage, &file, &doing).await,
                None => Ok(()),
            }
        }
        Step::DropSeed { node, storage, file } => seed::delete(world, ctx, node, storage, file, &doing).await,
        Step::Restart { at } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            // Without an answer of the guest Proxmox switches it off after the time-out.
            let request =
                Request::post(guest::status(at, "shutdown")).with("timeout", 120).with("forceStop", 1);
            guest::stop(world, ctx, at, &request, &doing).await?;
            guest::start(world, ctx, at, &doing).await
        }
        Step::Stop { at } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            let request = Request::post(guest::status(at, "stop"));
            guest::stop(world, ctx, at, &request, &doing).await
        }
        Step::DropTemplate { name, vmid, node } => {
            let at = At { machine: name.clone(), vmid: *vmid, node: node.clone(), kind: GuestKind::Vm };
            template::drop(world, ctx, &want.design, &at, &doing).await
        }
        Step::Destroy { at } => {
            guest::own(world, at, &want.design.cluster, &doing).await?;
            // Volumes that bear its id and stand in no option of it are somebody else's: they stay.
            let request = Request::delete(at.path()).with("purge", 1);
            let look = || guest::absent(world, at);
            persist(world, ctx, &doing, || world.client.run(ctx, &request), look).await
        }
    }
}

/// Whether the job has these options, or is not there.
async fn job_is(
    world: &World,
    want: &Want,
    id: &str,
    set: Option<&BTreeMap<String, String>>,
) -> Result<Look, crate::pve::Error> {
    let all = world.client.read(Request::get("/cluster/backup")).await?;
    let found = list(&all).iter().find(|j| text(j, "id").as_deref() == Some(id));
    let options = found.map(|j| crate::job::read(&want.design.cluster, j).options);
    Ok(if options.as_ref() == set { Look::Done } else { Look::NotYet })
}

async fn pool_is(world: &World, pool: &str, there: Look, gone: Look) -> Result<Look, crate::pve::Error> {
    match world.client.read(Request::get("/pools").with("poolid", pool)).await {
        Ok(_) => Ok(there),
        Err(error) if error.no_pool(pool) => Ok(gone),
        Err(error) => Err(error),
    }
}
