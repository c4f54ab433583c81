//! kubeadm's init: the first control plane of a cluster, new or from a backup.

use remote::{Host, RemoteFile};
use stage::{Ctx, Failure};

use crate::api::Api;
use crate::config::{self, Etcd};
use crate::evidence::wait_for_api;
use crate::kubeadm::with_config;
use crate::look::INTENT;
use crate::node::Node;
use crate::want::Want;
use crate::{World, hosts, pins, serving, token};

/// Makes the cluster on its first control plane, and proves it through the VIP.
///
/// # Errors
/// kubeadm's complaints, or what does not answer.
pub(crate) async fn init(
    node: &Node,
    host: &Host,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = format!("cannot initialise the cluster on {}", host.name());
    let (id, secret) = token::halves();
    let config = config::init(want, node, Some(&format!("{id}.{secret}")), None, Etcd::New)?;
    let note = format!("kubeadm init of the cluster {} began here\n", want.cluster);
    hosts::put(host, &RemoteFile::new(INTENT, note), &doing).await?;
    pins::enable(host, want).await?;
    with_config(host, "init", config, &["init"], &doing).await?;
    host.remove(INTENT).await.map_err(|e| fleet::failure(&doing, &e))?;
    answers_through_vip(host, &id, world, want, ctx).await.map(drop)
}

/// Makes the control plane around an etcd and authorities that are there already; gives the API through the VIP.
///
/// # Errors
/// kubeadm's complaints, or what does not answer.
pub(crate) async fn init_restored(
    node: &Node,
    host: &Host,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<Api, Failure> {
    let doing = format!("cannot initialise the cluster on {}", host.name());
    let (id, secret) = token::halves();
    let config = config::init(want, node, Some(&format!("{id}.{secret}")), None, Etcd::Restored)?;
    pins::enable(host, want).await?;
    with_config(host, "init", config, &["init"], &doing).await?;
    // What was known of an API before is of the cluster before.
    world.api.lock().await.take();
    answers_through_vip(host, &id, world, want, ctx).await
}

async fn answers_through_vip(
    host: &Host,
    id: &str,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<Api, Failure> {
    // kubeadm is content with its own machine; what counts is the address that everybody will use.
    let api = world.api(host.name(), want).await?;
    let what = format!("the API at {}", want.endpoint);
    wait_for_api(&api, &what, ctx).await.map_err(|f| f.hint("lb-render check; vip-keepalive check"))?;
    token::delete(&api, id).await?;
    serving::first(&api, host, want, ctx).await?;
    Ok(api)
}
