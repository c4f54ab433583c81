//! What proves that API servers and etcd are there, waited for.

use std::time::Duration;

use remote::{Command, Host};
use stage::{Ctx, Failure, Waiting};

use crate::api::{Api, ApiError};
use crate::etcd;
use crate::node::Node;
use crate::want::Want;

/// How long evidence may take.
pub(crate) const EVIDENCE: Duration = Duration::from_secs(300);
/// How long etcd may refuse to remove a member.
const PARTING: Duration = Duration::from_secs(60);

/// What is read to see that etcd answers.
const READ: &str = "/api/v1/namespaces/kube-system";

/// One real read: /readyz says nothing of etcd.
pub async fn reads(api: &Api) -> Result<(), ApiError> {
    api.text("/readyz").await?;
    api.get(READ).await.map(drop)
}

/// The API answers a real read.
pub(crate) async fn wait_for_api(api: &Api, what: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(what, EVIDENCE, || async {
        Ok(match reads(api).await {
            Ok(()) => Waiting::Seen(()),
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
}

/// The API answers a real read, which those who ask side by side share.
pub(crate) async fn wait_for_read(api: &Api, what: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(what, EVIDENCE, || async {
        Ok(match api.lately(READ).await {
            Ok(_) => Waiting::Seen(()),
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
}

/// Every member votes and answers, this one among them.
pub(crate) async fn wait_for_etcd(helper: &Host, name: Option<&str>, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for("etcd's members", EVIDENCE, || async {
        let members = match etcd::members(helper).await {
            Ok(members) => members,
            Err(why) => return Ok(Waiting::NotYet(why)),
        };
        let ill = members.iter().find(|m| m.learner || !m.healthy);
        Ok(match (ill, name) {
            (Some(m), _) if m.learner => Waiting::NotYet(format!("{} has not caught up", m.name)),
            (Some(m), _) => Waiting::NotYet(format!("{} is not healthy", m.name)),
            (None, Some(name)) if !members.iter().any(|m| m.name == name) => {
                Waiting::NotYet(format!("{name} is no member"))
            }
            _ => Waiting::Seen(()),
        })
    })
    .await
}

/// A member leaves etcd.
///
/// For five seconds after any member has begun, etcd refuses a removal that would be of no harm ("unhealthy cluster":
/// `mayRemoveMember` and `HealthInterval` in its server/etcdserver/server.go). It is asked again, and looked at: an answer
/// may have been lost.
pub(crate) async fn leaves_etcd(helper: &Host, id: u64, name: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(&format!("etcd to part with {name}"), PARTING, || async {
        let Err(why) = etcd::remove(helper, id).await else { return Ok(Waiting::Seen(())) };
        Ok(match etcd::members(helper).await {
            Ok(members) if members.iter().all(|m| m.id != id) => Waiting::Seen(()),
            _ => Waiting::NotYet(why),
        })
    })
    .await
}

/// The new control plane's own API server, asked on its machine: the VIP may lead to another one.
pub(crate) async fn own_api(node: &Node, host: &Host, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let ask = |path: &str| {
        Command::new("kubectl")
            .arg("--kubeconfig=/etc/kubernetes/admin.conf")
            .arg(format!("--server=https://{}:{}", node.address, want.api_port))
            .args(["--request-timeout=10s", "get", "--raw"])
            .arg(path)
            .sudo()
    };
    ctx.wait_for(&format!("the API server on {}", node.name), EVIDENCE, || async {
        for path in ["/readyz", READ] {
            let output = host.run(&ask(path)).await;
            let output = output.map_err(|e| fleet::failure(format!("cannot ask {}", node.name), &e))?;
            if !output.success() {
                return Ok(Waiting::NotYet(output.tail()));
            }
        }
        Ok(Waiting::Seen(()))
    })
    .await
}
