//! One operator at a time: a Lease in the cluster while its objects are changed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use kube_apply::{Cluster, Object, ObjectId};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Guard, Waiting};
use time::OffsetDateTime;

use crate::access::{Link, manager};
use crate::failure::failure;
use crate::ready::text;

/// A Lease that was not renewed for so long belongs to a run that was killed.
const SECONDS: i64 = 15;
/// How long its release may take.
const RELEASE: Duration = Duration::from_secs(3);

/// Takes the Lease of this tool; it is renewed until the value goes, and then deleted.
///
/// # Errors
/// Exit 5 naming the holder; exit 4 or 5 when there is no cluster.
pub async fn guard(world: &Link, ctx: &Ctx) -> Result<Guard, Failure> {
    let cluster = world.cluster()?.clone();
    let id = ObjectId::new(
        "coordination.k8s.io/v1",
        "Lease",
        Some("kube-system"),
        &format!("kubeline-{}", ctx.tool()),
    );
    let fail = |error| failure("cannot take the cluster's lock", &error);
    let me = ctx.holder();
    let taken = |other: String| {
        Failure::transient("the cluster is being changed by somebody else")
            .because(format!("{other} holds the Lease kube-system/{}", id.name))
            .hint("run again when that run has ended")
    };
    if let Some(other) = free(&cluster, &id, ctx).await? {
        return Err(taken(other));
    }
    if !create(&cluster, &id, &me, &manager(ctx)).await.map_err(fail)? {
        return Err(taken("another run, which was quicker,".to_owned()));
    }
    let cluster = cluster.force_conflicts();
    let (renewing, mine) = (cluster.clone(), id.clone());
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(SECONDS as u64 / 3)).await;
            if let Err(error) = write(&renewing, &mine, &me).await {
                tracing::warn!(%error, "cannot renew the cluster's lock");
            }
        }
    });
    Ok(Box::new(Held { kubeconfig: world.kubeconfig.clone(), manager: manager(ctx), id, task }))
}

/// Sees to it that there is no Lease: waits for one that nobody renews, and deletes it. Gives the holder of one that lives.
async fn free(cluster: &Cluster, id: &ObjectId, ctx: &Ctx) -> Result<Option<String>, Failure> {
    let fail = |error| failure("cannot look at the cluster's lock", &error);
    let begun = Instant::now();
    let first = std::sync::OnceLock::new();
    let first = &first;
    // It ends by itself once the Lease's time is over.
    let end = Duration::from_secs(4 * SECONDS as u64);
    ctx.wait_for("the cluster's lock", end, || async move {
        let lease =
            cluster.get(&id.api_version, &id.kind, id.namespace.as_deref(), &id.name).await.map_err(fail)?;
        let Some(lease) = lease else { return Ok(Waiting::Seen(None)) };
        let other = living(&lease, OffsetDateTime::now_utc());
        let renewed = text(&lease, "/spec/renewTime").to_owned();
        // Not renewed for its whole time: whatever the clocks say, its holder was killed.
        let dead = begun.elapsed() > Duration::from_secs(SECONDS as u64);
        let Some(other) = other.filter(|_| !dead) else {
            delete(cluster, id, text(&lease, "/metadata/uid")).await.map_err(fail)?;
            return Ok(Waiting::Seen(None));
        };
        if *first.get_or_init(|| renewed.clone()) != renewed {
            return Ok(Waiting::Seen(Some(other)));
        }
        Ok(Waiting::NotYet(format!("{other} held it last")))
    })
    .await
}

/// Creates the Lease; false when somebody has it: of two, the server lets one.
async fn create(
    cluster: &Cluster,
    id: &ObjectId,
    holder: &str,
    manager: &str,
) -> Result<bool, kube_apply::Error> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?fieldManager={manager}");
    request(cluster, http::Method::POST, &path, &lease(id, holder), 409).await
}

/// Deletes that very Lease; a newer one stays.
async fn delete(cluster: &Cluster, id: &ObjectId, uid: &str) -> Result<bool, kube_apply::Error> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{}", id.name);
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
    let deleted = request(cluster, http::Method::DELETE, &path, &options, 409).await;
    match deleted {
        Err(kube_apply::Error::Refused { code: 404, .. }) => Ok(false),
        other => other,
    }
}

/// A write that the server may answer with that code, which is no error: false.
async fn request(
    cluster: &Cluster,
    method: http::Method,
    path: &str,
    body: &Value,
    but: u16,
) -> Result<bool, kube_apply::Error> {
    let doing = "change the cluster's lock".to_owned();
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", "application/json")
        .body(body.to_string().into_bytes())
        .map_err(|e| kube_apply::Error::Answer { doing: doing.clone(), why: e.to_string() })?;
    match cluster.client().request::<Value>(request).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == but => Ok(false),
        Err(kube::Error::Api(status)) => Err(kube_apply::Error::Refused {
            doing,
            code: status.code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        Err(error) => Err(kube_apply::Error::Unreachable {
            doing,
            server: cluster.server().to_owned(),
            after: Duration::ZERO,
            source: Box::new(error),
        }),
    }
}

struct Held {
    kubeconfig: PathBuf,
    manager: String,
    id: ObjectId,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.task.abort();
        let (kubeconfig, manager, id) = (self.kubeconfig.clone(), self.manager.clone(), self.id.clone());
        // The run is about to end, and its runtime with it, so that the Lease goes over a connection of its own.
        let end = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let release = async {
                    if let Ok(cluster) = Cluster::connect(&kubeconfig, &manager).await {
                        let _ = cluster.patience(RELEASE).delete(&id).await;
                    }
                };
                let _ = tokio::time::timeout(RELEASE, release).await;
            });
            Ok::<_, std::io::Error>(())
        });
        // What is not released is nobody's after its time.
        let _ = end.join();
    }
}

async fn write(cluster: &Cluster, id: &ObjectId, holder: &str) -> Result<(), kube_apply::Error> {
    let lease = Object::new(lease(id, holder))
        .map_err(|why| kube_apply::Error::Manifest { source_name: "lease".into(), why })?;
    cluster.apply_object(&lease).await.map(drop)
}

fn lease(id: &ObjectId, holder: &str) -> Value {
    json!({
        "apiVersion": id.api_version,
        "kind": id.kind,
        "metadata": {"name": id.name, "namespace": id.namespace},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": SECONDS,
            "renewTime": micro(OffsetDateTime::now_utc()),
        },
    })
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
