//! One operator at a time: a Lease in the cluster while its objects are changed.

use std::time::Duration;

use kube_apply::{Cluster, Object, ObjectId};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Guard};
use time::OffsetDateTime;

use crate::access::World;
use crate::failure::failure;
use crate::ready::text;

/// A Lease that was not renewed for so long belongs to a run that was killed.
const SECONDS: i64 = 15;

/// Takes the Lease of this tool; it is renewed until the value goes, and then deleted.
///
/// # Errors
/// Exit 5 naming the holder; exit 4 or 5 when there is no cluster.
pub async fn guard(world: &World, ctx: &Ctx) -> Result<Guard, Failure> {
    let cluster = world.cluster()?.clone();
    let id = ObjectId::new(
        "coordination.k8s.io/v1",
        "Lease",
        Some("kube-system"),
        &format!("kubeline-{}", ctx.tool()),
    );
    let fail = |error| failure("cannot take the cluster's lock", &error);
    let held =
        cluster.get(&id.api_version, &id.kind, id.namespace.as_deref(), &id.name).await.map_err(fail)?;
    let me = holder(ctx);
    if let Some(other) = held.as_ref().and_then(|lease| living(lease, OffsetDateTime::now_utc())) {
        return Err(Failure::transient("the cluster is being changed by somebody else")
            .because(format!("{other} holds the Lease {}/{}", "kube-system", id.name))
            .hint("run again when that run has ended"));
    }
    write(&cluster, &id, &me).await.map_err(fail)?;
    let (renewing, mine) = (cluster.clone(), id.clone());
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(SECONDS as u64 / 3)).await;
            if let Err(error) = write(&renewing, &mine, &me).await {
                tracing::warn!(%error, "cannot renew the cluster's lock");
            }
        }
    });
    Ok(Box::new(Held { cluster, id, task }))
}

struct Held {
    cluster: Cluster,
    id: ObjectId,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
        let (cluster, id) = (self.cluster.clone(), self.id.clone());
        let end = async move {
            let _ = cluster.delete(&id).await;
        };
        // The run is about to end, and its runtime with it: the Lease has to go before.
        match tokio::runtime::Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| handle.block_on(end));
            }
            Ok(handle) => drop(handle.spawn(end)),
            Err(_) => {}
        }
    }
}

async fn write(cluster: &Cluster, id: &ObjectId, holder: &str) -> Result<(), kube_apply::Error> {
    let now = micro(OffsetDateTime::now_utc());
    let lease = json!({
        "apiVersion": id.api_version,
        "kind": id.kind,
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": SECONDS, "renewTime": now},
    });
    let lease =
        Object::new(lease).map_err(|why| kube_apply::Error::Manifest { source_name: "lease".into(), why })?;
    cluster.apply_object(&lease).await.map(drop)
}

/// RFC 3339 with six digits after the second: the API's MicroTime takes no other form.
fn micro(at: OffsetDateTime) -> String {
    let (date, clock) = (at.date(), at.time());
    format!(
        "{date}T{:02}:{:02}:{:02}.{:06}Z",
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.microsecond()
    )
}

/// The holder of a Lease that is still renewed.
fn living(lease: &Value, now: OffsetDateTime) -> Option<String> {
    let renewed = text(lease, "/spec/renewTime");
    let seconds = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_i64).unwrap_or(SECONDS);
    let renewed = OffsetDateTime::parse(renewed, &time::format_description::well_known::Rfc3339).ok()?;
    (now - renewed < time::Duration::seconds(seconds)).then(|| text(lease, "/spec/holderIdentity").to_owned())
}

fn holder(ctx: &Ctx) -> String {
    let site = ctx.site();
    let user = site.env("USER").unwrap_or_else(|| "somebody".to_owned());
    let from = site.env("HOSTNAME").map(|h| format!(" at {h}")).unwrap_or_default();
    format!("{} run by {user}{from}, process {}", ctx.tool(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_lease_is_nobodys() {
        let now = OffsetDateTime::now_utc();
        let lease = |age: i64| {
            let renewed = micro(now - time::Duration::seconds(age));
            json!({"spec": {"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": renewed}})
        };
        assert_eq!(living(&lease(3), now).as_deref(), Some("x"));
        assert_eq!(living(&lease(60), now), None);
        assert_eq!(living(&json!({"spec": {}}), now), None);
    }
}
