//! What is in the cluster, beside what shall be there.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use kube_apply::{Difference, Error, ObjectId};
use serde::{Deserialize, Serialize};
use stage::{Ctx, Failure, Finding};

use crate::access::{Access, Link};
use crate::failure::failure;
use crate::offline::Offline;
use crate::ready::{self, Ready};
use crate::set::Addon;

/// An object that has left the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Left {
    /// The object.
    pub id: ObjectId,
    /// Why it stays unless data may go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
}

/// Something that is not ready, and what is lacking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lacking {
    /// What is not ready.
    pub what: Ready,
    /// What it lacks.
    pub reason: String,
}

/// What is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seen {
    /// Why nothing could be seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// Each object, and what an apply would do; the set's parent first.
    pub differences: Vec<Difference>,
    /// Objects that have left the set.
    pub leftovers: Vec<Left>,
    /// Objects that are made once and are missing.
    pub absent: Vec<ObjectId>,
    /// What is not ready.
    pub lacking: Vec<Lacking>,
    /// Nodes that are lost, and why.
    pub lost: BTreeMap<String, String>,
    /// Namespaces with claims in them.
    pub claims: BTreeSet<String>,
}

/// Looks at the cluster, changing nothing.
///
/// # Errors
/// Exit 5 when the API fails meanwhile, 4 when it refuses an object.
pub async fn observe(world: &Link, addon: &Addon, access: &Access, ctx: &Ctx) -> Result<Seen, Failure> {
    let mut seen = Seen { lost: access.unreachable.clone(), ..Seen::default() };
    let cluster = match &world.cluster {
        Ok(cluster) => cluster,
        Err(offline) => {
            seen.offline = Some(offline.clone());
            return Ok(seen);
        }
    };
    ctx.waiting(format!("a dry run of {} objects at {}", addon.len(), cluster.server()));
    let needs = async |need: &Ready| {
        let found = need.look(cluster).await?;
        Ok::<_, Error>(found.err().map(|reason| Lacking { what: need.clone(), reason }))
    };
    let once = async |id: &ObjectId| {
        let found = cluster.get(&id.api_version, &id.kind, id.namespace.as_deref(), &id.name).await?;
        Ok::<_, Error>(found.is_none().then(|| id.clone()))
    };
    // Boxed: side by side they are larger than a thread's stack should hold.
    let (differences, leftovers, lacking, absent, nodes, claims) = futures::try_join!(
        Box::pin(cluster.observe(&addon.set)),
        Box::pin(cluster.leftovers(&addon.set)),
        Box::pin(try_join_all(addon.needs().map(needs))),
        Box::pin(try_join_all(addon.once().map(|one| once(&one.id)))),
        Box::pin(cluster.list("v1", "Node", None, None)),
        Box::pin(cluster.list("v1", "PersistentVolumeClaim", None, None)),
    )
    .map_err(|error| failure("cannot compare the cluster with the document", &error))?;
    let own: BTreeSet<&ObjectId> = addon.once().map(|one| &one.id).collect();
    let left = leftovers.into_iter().filter(|left| !own.contains(&left.id));
    seen.differences = differences;
    seen.leftovers = left.map(|left| Left { id: left.id, holds: left.holds.map(str::to_owned) }).collect();
    seen.lacking = lacking.into_iter().flatten().collect();
    seen.absent = absent.into_iter().flatten().collect();
    for (name, why) in ready::lost(&nodes) {
        seen.lost.entry(name).or_insert(why);
    }
    seen.claims = claims.iter().map(|c| ready::text(c, "/metadata/namespace").to_owned()).collect();
    Ok(seen)
}

/// What `check` has to say beside the plan: the steps of a plan are found by the shell itself.
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let offline = seen.offline.iter().map(|offline| {
        let failure = offline.failure();
        let finding = Finding::new("the cluster", offline.why());
        match failure.hints.first() {
            Some(hint) => finding.hint(hint.clone()),
            None => finding,
        }
    });
    offline.collect()
}
