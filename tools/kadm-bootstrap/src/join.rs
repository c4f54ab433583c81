//! kubeadm's join: another control plane or a worker.

use remote::Host;
use stage::{Ctx, Failure, Waiting};

use crate::api::Api;
use crate::config::{self, Etcd};
use crate::evidence::{EVIDENCE, own_api, wait_for_api, wait_for_etcd, wait_for_read};
use crate::kubeadm::with_config;
use crate::node::Node;
use crate::want::Want;
use crate::{World, certificate, kubeconfig, pins, serving, token};

/// Joins a machine to the cluster, and proves that it stands.
///
/// # Errors
/// kubeadm's complaints, or what does not answer.
pub(crate) async fn join(
    node: &Node,
    host: &Host,
    control_plane: bool,
    via: &str,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot join {}", node.name);
    let api = world.api(via, want).await?;
    let helper = world.fleet.host(via)?;
    let what = format!("the API at {}", want.endpoint);
    if control_plane {
        futures::try_join!(wait_for_api(&api, &what, ctx), wait_for_etcd(helper, None, ctx))?;
    } else {
        wait_for_read(&api, &what, ctx).await?;
    }
    let admin = world.admin_conf(via).await?;
    let ca = kubeconfig::ca_pem(&admin).and_then(|pem| certificate::key_pin(&pem));
    let ca =
        ca.ok_or_else(|| Failure::precondition(&doing).because(format!("admin.conf on {via} has no CA")))?;
    pins::enable(host, want).await?;
    let (id, words) = token::make(&api, &doing).await?;
    let joined = async {
        let key = async {
            if control_plane { uploaded(via, world, want, &doing).await.map(Some) } else { Ok(None) }
        };
        let (key, ()) = futures::try_join!(key, token::signed(&api, &id, ctx))?;
        let config = config::join(want, node, &words, &ca, key.as_deref())?;
        with_config(host, "join", config, &["join"], &doing).await
    };
    let joined = Box::pin(joined).await;
    let dropped = token::delete(&api, &id).await;
    joined.and(dropped)?;
    let stands = async {
        if !control_plane {
            return Ok(());
        }
        let (etcd, own) = (wait_for_etcd(helper, Some(&node.name), ctx), own_api(node, host, want, ctx));
        futures::try_join!(etcd, own).map(drop)
    };
    let served = Box::pin(serving::first(&api, host, want, ctx));
    futures::try_join!(Box::pin(stands), served)?;
    // Last: a kubelet asks for its certificate once its node is there, and is asked about only once then.
    registered(&api, &node.name, ctx).await
}

/// Uploads the certificates for one join, and gives the key that opens them: the one before may have expired, and nobody
/// else knows this one.
async fn uploaded(via: &str, world: &World, want: &Want, doing: &str) -> Result<String, Failure> {
    let fresh = token::random(b"0123456789abcdef", 64);
    let config = config::init(want, want.known(via)?, None, Some(&fresh), Etcd::New)?;
    let words = ["init", "phase", "upload-certs", "--upload-certs"];
    let doing = format!("{doing}: cannot upload certificates on {via}");
    with_config(world.fleet.host(via)?, "upload", config, &words, &doing).await?;
    Ok(fresh)
}

async fn registered(api: &Api, name: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(&format!("the node {name}"), EVIDENCE, || async {
        Ok(match api.find(&format!("/api/v1/nodes/{name}")).await {
            Ok(Some(_)) => Waiting::Seen(()),
            Ok(None) => Waiting::NotYet("it has not registered".to_owned()),
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
}
