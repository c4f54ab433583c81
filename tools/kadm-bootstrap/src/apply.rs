//! One step: do it, wait until it is seen.

use std::time::Duration;

use stage::{Ctx, Failure};

use crate::api::Api;
use crate::drain::{self, Drain};
use crate::evidence::wait_for_api;
use crate::existing::{self, Existing};
use crate::roll::{self, Kubelet};
use crate::step::Step;
use crate::want::Want;
use crate::{
    World, approver, certs, etcd, hosts, init, join, kubeadm, kubeconfig, kubelet, label, merge, pins, proxy,
    restore, serving, token,
};

/// Does one step.
///
/// # Errors
/// What went wrong.
pub async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let on = |name: &str| world.fleet.host(name);
    match step {
        Step::Kernel { host, files, modules, settings, swap_off } => {
            hosts::kernel(on(host)?, want, files, modules, *settings, *swap_off).await
        }
        Step::Packages { host, install, hold, repository } => {
            hosts::packages(on(host)?, want, install, hold, repository.as_ref()).await
        }
        Step::Pin { host, pins, units } => pins::install(on(host)?, want, pins, units).await,
        Step::Runtime { host, sha256 } => hosts::runtime(on(host)?, want, sha256.as_deref(), ctx).await,
        Step::Images { host, version, registry } => hosts::images(on(host)?, version, registry).await,
        Step::Sweep { host, files } => hosts::sweep(on(host)?, files).await,
        Step::Reset { host } => kubeadm::reset(on(host)?).await,
        Step::Start { host, unit } => hosts::start(on(host)?, unit).await,
        Step::Init { host, .. } => Box::pin(init::init(want.known(host)?, on(host)?, world, want, ctx)).await,
        Step::Existing { host, via, version, tag, stored, manifest } => {
            let (node, api) = (want.known(host)?, world.api(via, want).await?);
            let what = Existing { version, tag: tag.as_deref(), stored: *stored, manifest: *manifest };
            Box::pin(existing::keep(node, on(host)?, &what, &api, want, ctx)).await
        }
        Step::Join { host, control_plane, via, .. } => {
            let node = want.known(host)?;
            Box::pin(join::join(node, on(host)?, *control_plane, via, world, want, ctx)).await
        }
        Step::RemoveMember { via, id, name } => {
            let doing = format!("cannot remove the etcd member {name}");
            etcd::remove(on(via)?, *id).await.map_err(|why| Failure::transient(doing).because(why))
        }
        Step::DeleteNode { via, node } => {
            let api = world.api(via, want).await?;
            let deleted = api.delete(&format!("/api/v1/nodes/{node}")).await;
            deleted.map(drop).map_err(|e| e.failure(format!("cannot delete the node {node}")))
        }
        Step::Drain { via, node, seconds, leaves, runs } => {
            let how = Drain { node, at_most: Duration::from_secs(*seconds), leaves: *leaves, runs: *runs };
            Box::pin(drain::drain(&world.api(via, want).await?, &how, ctx)).await
        }
        Step::Uncordon { via, node } => drain::uncordon(&world.api(via, want).await?, node).await,
        Step::Snapshot { host, path } => roll::snapshot(on(host)?, path).await,
        Step::ControlPlane { host, first, .. } => {
            Box::pin(roll::control_plane(want.known(host)?, *first, world, want, ctx)).await
        }
        Step::Kubelet { host, via, install, hold, pins, configure, ready, .. } => {
            let what = Kubelet { install, hold, pins, configure: *configure, ready: *ready };
            Box::pin(roll::kubelet(on(host)?, &what, &world.api(via, want).await?, want, ctx)).await
        }
        Step::KubeletConfig { via, fields, drop, noted } => {
            kubelet::store(&world.api(via, want).await?, fields, drop, noted).await
        }
        Step::KubeletNote { via, fields } => kubelet::note(&world.api(via, want).await?, fields).await,
        Step::Configure { host, via, drop, ready } => {
            let api = world.api(via, want).await?;
            Box::pin(kubelet::configure(on(host)?, drop, *ready, &api, want, ctx)).await
        }
        Step::Proxy { via, mode } => proxy::change(&world.api(via, want).await?, mode, ctx).await,
        Step::Timer { host, files, remove } => hosts::timer(on(host)?, want, files, remove).await,
        Step::Renew { host } => Box::pin(certs::renew(want.known(host)?, on(host)?, want, ctx)).await,
        Step::Aside { host } => restore::aside(on(host)?).await,
        Step::Restore { host, backup, identity, content_sha256, .. } => {
            let node = want.known(host)?;
            Box::pin(restore::restore(node, backup, identity, content_sha256, world, want, ctx)).await
        }
        Step::Approver { via, .. } => {
            Box::pin(approver::install(&world.api(via, want).await?, &want.approver, ctx)).await
        }
        Step::Approve { via, request, sha256, .. } => {
            serving::approve(&world.api(via, want).await?, request, sha256, want, ctx).await
        }
        Step::DropToken { via, id } => token::delete(&world.api(via, want).await?, id).await,
        Step::Kubeconfig { via, server, .. } => write_kubeconfig(via, server, world, want, ctx).await,
        Step::Merge { via, server, switch, .. } => {
            merge::write(&world.admin_conf(via).await?, server, *switch, want, ctx).await
        }
        Step::Unmerge { context, .. } => merge::remove(context, want, ctx),
        Step::RemoveKubeconfig { path } => match std::fs::remove_file(&want.kubeconfig) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::precondition(format!("cannot remove {path}")).because(e.to_string()))
            }
            _ => Ok(()),
        },
        Step::Node { via, node, labels, taints, drop_taints } => {
            let api = world.api(via, want).await?;
            label::mark(&api, node, labels, taints, drop_taints, ctx).await
        }
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
