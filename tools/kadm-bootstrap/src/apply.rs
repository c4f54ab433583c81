//! One step: do it, wait until it is seen.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use stage::{Ctx, Failure};

use crate::api::Api;
use crate::drain::{self, Drain};
use crate::evidence::{leaves_etcd, wait_for_api};
use crate::existing::{self, Existing};
use crate::roll::{self, Kubelet};
use crate::step::Step;
use crate::want::Want;
use crate::{
    World, approver, certs, exchange, hosts, init, join, kubeadm, kubeconfig, kubelet, label, merge, pins,
    proxy, restore, serving, token,
};

/// Does one step, each on the heap by itself: one future of all of them would be as large as all together.
///
/// # Errors
/// What went wrong.
pub fn apply<'a>(
    step: &'a Step,
    world: &'a World,
    want: &'a Want,
    ctx: &'a Ctx,
) -> BoxFuture<'a, Result<(), Failure>> {
    let on = |name: &str| world.fleet.host(name);
    match step {
        Step::Kernel { host, files, modules, settings, swap_off } => {
            async move { hosts::kernel(on(host)?, want, files, modules, *settings, *swap_off).await }.boxed()
        }
        Step::Packages { host, install, hold, repository } => {
            async move { hosts::packages(on(host)?, want, install, hold, repository.as_ref(), ctx).await }
                .boxed()
        }
        Step::Pin { host, pins, units } => {
            async move { pins::install(on(host)?, want, pins, units).await }.boxed()
        }
        Step::Runtime { host, sha256 } => {
            async move { hosts::runtime(on(host)?, want, sha256.as_deref(), ctx).await }.boxed()
        }
        Step::Images { host, version, registry } => {
            async move { hosts::images(on(host)?, version, registry).await }.boxed()
        }
        Step::Sweep { host, files } => async move { hosts::sweep(on(host)?, files).await }.boxed(),
        Step::Reset { host } => async move { kubeadm::reset(on(host)?).await }.boxed(),
        Step::Start { host, unit } => async move { hosts::start(on(host)?, unit).await }.boxed(),
        Step::Init { host, .. } => {
            async move { init::init(want.known(host)?, on(host)?, world, want, ctx).await }.boxed()
        }
        Step::Existing { host, via, version, tag, stored, manifest } => async move {
            let (node, api) = (want.known(host)?, world.api(via, want).await?);
            let what = Existing { version, tag: tag.as_deref(), stored: *stored, manifest: *manifest };
            existing::keep(node, on(host)?, &what, &api, want, ctx).await
        }
        .boxed(),
        Step::Join { host, control_plane, via, .. } => async move {
            let node = want.known(host)?;
            join::join(node, on(host)?, *control_plane, via, world, want, ctx).await
        }
        .boxed(),
        Step::RemoveMember { via, id, name } => {
            async move { leaves_etcd(on(via)?, *id, name, ctx).await }.boxed()
        }
        Step::DeleteNode { via, node } => async move {
            let api = world.api(via, want).await?;
            let deleted = api.delete(&format!("/api/v1/nodes/{node}")).await;
            deleted.map(drop).map_err(|e| e.failure(format!("cannot delete the node {node}")))
        }
        .boxed(),
        Step::Drain { via, node, seconds, leaves, runs } => async move {
            let how = Drain { node, at_most: Duration::from_secs(*seconds), leaves: *leaves, runs: *runs };
            drain::drain(&world.api(via, want).await?, &how, ctx).await
        }
        .boxed(),
        Step::Uncordon { via, node } => {
            async move { drain::uncordon(&world.api(via, want).await?, node).await }.boxed()
        }
        Step::Snapshot { host, path } => async move { roll::snapshot(on(host)?, path).await }.boxed(),
        Step::ControlPlane { host, first, .. } => {
            async move { roll::control_plane(want.known(host)?, *first, world, want, ctx).await }.boxed()
        }
        Step::Kubelet { host, via, install, hold, pins, configure, ready, .. } => async move {
            let what = Kubelet { install, hold, pins, configure: *configure, ready: *ready };
            roll::kubelet(on(host)?, &what, &world.api(via, want).await?, want, ctx).await
        }
        .boxed(),
        Step::Programs { host, via, ready, what } => async move {
            exchange::exchange(on(host)?, what, *ready, &world.api(via, want).await?, want, ctx).await
        }
        .boxed(),
        Step::KubeletConfig { via, fields, drop, noted } => {
            async move { kubelet::store(&world.api(via, want).await?, fields, drop, noted).await }.boxed()
        }
        Step::KubeletNote { via, fields } => {
            async move { kubelet::note(&world.api(via, want).await?, fields).await }.boxed()
        }
        Step::Configure { host, via, drop, ready } => async move {
            let api = world.api(via, want).await?;
            kubelet::configure(on(host)?, drop, *ready, &api, want, ctx).await
        }
        .boxed(),
        Step::Proxy { via, mode } => {
            async move { proxy::change(&world.api(via, want).await?, mode, ctx).await }.boxed()
        }
        Step::Timer { host, files, remove } => {
            async move { hosts::timer(on(host)?, want, files, remove).await }.boxed()
        }
        Step::Renew { host } => {
            async move { certs::renew(want.known(host)?, on(host)?, want, ctx).await }.boxed()
        }
        Step::Aside { host } => async move { restore::aside(on(host)?).await }.boxed(),
        Step::Restore { host, backup, identity, content_sha256, .. } => async move {
            let node = want.known(host)?;
            restore::restore(node, backup, identity, content_sha256, world, want, ctx).await
        }
        .boxed(),
        Step::Approver { via, .. } => {
            async move { approver::install(&world.api(via, want).await?, &want.approver, ctx).await }.boxed()
        }
        Step::Approve { via, request, sha256, .. } => {
            async move { serving::approve(&world.api(via, want).await?, request, sha256, want, ctx).await }
                .boxed()
        }
        Step::DropToken { via, id } => {
            async move { token::delete(&world.api(via, want).await?, id).await }.boxed()
        }
        Step::Kubeconfig { via, server, .. } => {
            async move { write_kubeconfig(via, server, world, want, ctx).await }.boxed()
        }
        Step::Merge { via, server, switch, .. } => {
            async move { merge::write(&world.admin_conf(via).await?, server, *switch, want, ctx).await }
                .boxed()
        }
        Step::Unmerge { context, .. } => async move { merge::remove(context, want, ctx) }.boxed(),
        Step::RemoveKubeconfig { path } => async move {
            match std::fs::remove_file(&want.kubeconfig) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::precondition(format!("cannot remove {path}")).because(e.to_string()))
                }
                _ => Ok(()),
            }
        }
        .boxed(),
        Step::Node { via, node, labels, taints, drop_taints } => async move {
            let api = world.api(via, want).await?;
            label::mark(&api, node, labels, taints, drop_taints, ctx).await
        }
        .boxed(),
    }
}

async fn write_kubeconfig(
    via: &str,
    server: &str,
    world: &World,
    want: &Want,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let doing = || format!("cannot write the kubeconfig {}", want.kubeconfig_shown);
    let admin = world.admin_conf(via).await?;
    let text = kubeconfig::with_server(&admin, server).ok_or_else(|| {
        Failure::precondition(doing()).because(format!("admin.conf on {via} is no kubeconfig"))
    })?;
    // Proven before anybody relies on it: one real request through the VIP with this very file.
    let api = Api::connect(&text, None).await?;
    wait_for_api(&api, &format!("the API at {server}"), ctx)
        .await
        .map_err(|f| f.hint("lb-render check; vip-keepalive check"))?;
    ctx.write_file(&want.kubeconfig, text.as_bytes(), 0o600).map(drop)
}
