//! One step in the cluster: done, and waited for until it is seen.

use std::time::Duration;

use kube_apply::{Class, Cluster, Object, ObjectId, Stage, Wait};
use stage::{Ctx, Failure, Waiting};

use crate::access::Link;
use crate::failure::failure;
use crate::plan::Step;
use crate::ready::Ready;
use crate::set::Addon;

/// How long a workload may take: images come over the network.
const READY: Duration = Duration::from_secs(900);
/// How long a definition may take until it is established.
const DEFINITION: Duration = Duration::from_secs(60);
/// How long an object may take to go.
const GONE: Duration = Duration::from_secs(300);

/// Does one step.
///
/// # Errors
/// What the API said, with the exit that it means; exit 5 when the evidence did not come in time.
pub async fn apply(step: &Step, world: &Link, addon: &Addon, ctx: &Ctx) -> Result<(), Failure> {
    let cluster = world.cluster()?;
    let fail = |error: kube_apply::Error| failure(format!("cannot {step}"), &error);
    let say = |reason: &str| ctx.waiting(reason);
    match step {
        Step::Open { .. } => {
            cluster.apply(&addon.set.only(&[]), |_| {}).await.map_err(fail)?;
        }
        Step::Create { id, .. } | Step::Change { id, .. } => {
            cluster.apply_object(object(addon, id)?).await.map_err(fail)?;
            if Stage::of(id) == Stage::Definitions {
                let wait = Wait::CrdEstablished { name: id.name.clone() };
                cluster.wait(&wait, DEFINITION, say).await.map_err(fail)?;
            }
        }
        Step::Recreate { id, .. } => {
            cluster.recreate(object(addon, id)?, GONE, say).await.map_err(fail)?;
        }
        Step::Generate { id } => {
            let made = addon.once().find(|once| once.id == *id).map(|once| (once.make)(id));
            let made = made.ok_or_else(|| unknown(id)).and_then(|value| {
                Object::new(value).map_err(|why| Failure::internal(format!("cannot {step}")).because(why))
            })?;
            cluster.apply_object(&made).await.map_err(fail)?;
        }
        Step::Wait { what } => wait(what, cluster, READY, ctx).await?,
        // These, and nothing that has left the set since the plan was made.
        Step::Prune { ids } => {
            cluster.prune_those(&addon.set, |left| ids.contains(&left.id)).await.map_err(fail)?;
        }
        Step::Delete { id } => {
            cluster.delete(id).await.map_err(fail)?;
            cluster.wait(&Wait::Gone { id: id.clone() }, GONE, say).await.map_err(fail)?;
        }
    }
    Ok(())
}

/// Waits until it is ready; pods on nodes that are lost are not waited for.
///
/// # Errors
/// What the API said, with the exit that it means; exit 5 when it did not become so in time.
pub async fn wait(what: &Ready, cluster: &Cluster, at_most: Duration, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(&what.to_string(), at_most, || async {
        match what.look(cluster).await {
            Ok(Ok(())) => Ok(Waiting::Seen(())),
            Ok(Err(reason)) => Ok(Waiting::NotYet(reason)),
            // An API that restarts is waited for as well.
            Err(error) if matches!(error.class(), Class::Unreachable | Class::Transient) => {
                Ok(Waiting::NotYet(error.to_string()))
            }
            Err(error) => Err(failure(format!("cannot look at {what}"), &error)),
        }
    })
    .await
}

fn object<'a>(addon: &'a Addon, id: &ObjectId) -> Result<&'a Object, Failure> {
    addon.set.get(id).ok_or_else(|| unknown(id))
}

fn unknown(id: &ObjectId) -> Failure {
    Failure::internal(format!("the plan names {id}, which the manifests do not have"))
}
