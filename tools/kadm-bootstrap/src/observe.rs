//! Looks at machines, cluster and kubeconfig, changing nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use serde_json::Value;
use stage::{Ctx, Failure, Waiting};

use crate::access::KubeconfigSeen;
use crate::api::{Api, ApiError};
use crate::evidence::reads;
use crate::seen::{ClusterSeen, HostSeen, NodeSeen, Seen};
use crate::want::Want;
use crate::{
    World, approver, etcd, existing, fields, kubeconfig, kubelet, look, merge, node, probe, proxy, serving,
    token, wal,
};

/// How long an API that should answer is waited for.
const PATIENCE: Duration = Duration::from_secs(8);

/// Looks at everything.
///
/// # Errors
/// Exit 5 when a machine fails in the middle of it.
pub async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
    let command = look::command(want.debs(), want.files.paths());
    let found = world.fleet.each(ctx, "look at", |host| {
        let command = command.clone();
        async move { host.ok(&command).await.map(|output| look::read(&output.text())) }
    });
    let found = found.await?;
    let mut seen = Seen { hosts: found.of, unreachable: found.unreachable, ..Seen::default() };
    seen.kubeconfig = operators(want)?;
    seen.merge = merge::observe(want)?;
    probe::across(world, want, &mut seen, ctx).await?;
    cluster(world, want, &mut seen, ctx).await?;
    wal::observe(world, want, &mut seen, ctx).await?;
    Ok(seen)
}

fn operators(want: &Want) -> Result<Option<KubeconfigSeen>, Failure> {
    let path = &want.kubeconfig;
    let wrong = |e: std::io::Error| {
        Failure::precondition(format!("cannot read {}", want.kubeconfig_shown)).because(e.to_string())
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(wrong(e)),
    };
    let private = std::fs::metadata(path).map_err(wrong)?.mode() & 0o077 == 0;
    Ok(Some(kubeconfig::read(&String::from_utf8_lossy(&text), private)))
}

/// Finds a control plane whose admin.conf opens the API, through the VIP or, failing that, at its own address.
async fn cluster(world: &World, want: &Want, seen: &mut Seen, ctx: &Ctx) -> Result<(), Failure> {
    world.api.lock().await.take();
    let knows = |h: &HostSeen| h.state.contains("/etc/kubernetes/admin.conf");
    let leaving = want.leaving.iter().filter(|n| n.control_plane);
    // One that leaves may be the last that knows the cluster; it helps as long as it is the only one.
    let mut candidates: Vec<String> = want
        .control_planes()
        .chain(leaving)
        .filter(|n| seen.hosts.get(&n.name).is_some_and(knows))
        .map(|n| n.name.clone())
        .collect();
    // A machine that is to be reset may belong elsewhere: the others are believed first.
    candidates.sort_by_key(|name| want.reset.contains(name));
    for name in &candidates {
        let Some(node) = want.any(name) else { continue };
        let text = match world.admin_conf(name).await {
            Ok(text) => text,
            Err(failure) => {
                seen.api_fault = Some(failure.causes.join(": "));
                continue;
            }
        };
        let through_vip = match Api::connect(&text, Some(&format!("https://{}", want.endpoint))).await {
            Ok(api) => api,
            // A file that somebody broke is evidence to be weighed, no end of the run.
            Err(failure) => {
                seen.api_fault = Some(format!("{}: {}", failure.doing, failure.causes.join(": ")));
                continue;
            }
        };
        let direct = format!("https://{}:{}", node.address, want.api_port);
        let (api, vip_fault) = match answers(&through_vip, ctx).await {
            Ok(()) => (through_vip, None),
            Err(fault) => {
                let direct = Api::connect(&text, Some(&direct)).await?;
                if let Err(own) = reads(&direct).await {
                    seen.api_fault = Some(format!("{fault}; at its own address: {own}"));
                    continue;
                }
                (direct, Some(fault.to_string()))
            }
        };
        match ask(&api, name, seen, want).await {
            Ok(mut cluster) => {
                cluster.vip_fault = vip_fault;
                seen.api_fault = None;
                *world.api.lock().await = Some(api);
                etcd_of(world, &candidates, &mut cluster).await;
                seen.cluster = Some(cluster);
                return Ok(());
            }
            Err(error) => seen.api_fault = Some(error.to_string()),
        }
    }
    Ok(())
}

/// Whether the API answers, given a little time; a refusal is an answer at once.
async fn answers(api: &Api, ctx: &Ctx) -> Result<(), ApiError> {
    let last = std::sync::Mutex::new(None);
    let note = |error: ApiError| {
        if let Ok(mut last) = last.lock() {
            *last = Some(error);
        }
    };
    let seen = ctx.wait_for("the API", PATIENCE, || async {
        Ok(match reads(api).await {
            Ok(()) => Waiting::Seen(true),
            Err(error @ ApiError::Refused(401 | 403, _)) => {
                note(error);
                Waiting::Seen(false)
            }
            Err(error) => {
                let said = error.to_string();
                note(error);
                Waiting::NotYet(said)
            }
        })
    });
    match seen.await {
        Ok(true) => Ok(()),
        _ => Err(last.into_inner().ok().flatten().unwrap_or_else(|| ApiError::Away("no answer".to_owned()))),
    }
}

async fn ask(api: &Api, lead: &str, seen: &Seen, want: &Want) -> Result<ClusterSeen, ApiError> {
    let unfinished = seen.hosts.values().any(|h| h.intent);
    let tokens =
        "/api/v1/namespaces/kube-system/secrets?fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken";
    let (version, nodes, tokens, missing, stored, proxies, restored, requests, approver, kubelets) = futures::join!(
        api.get("/version"),
        api.get("/api/v1/nodes"),
        api.get(tokens),
        missing(api, unfinished),
        api.find(existing::STORED),
        futures::future::try_join(api.find(proxy::WORKLOAD), api.find(proxy::CONFIG)),
        api.find(crate::restore::MARK),
        api.get(serving::REQUESTS),
        approver::observe(api, &want.approver).boxed(),
        futures::future::try_join(api.find(kubelet::STORED), api.find(kubelet::NOTED)),
    );
    let (version, stored) = (version?, stored?);
    let version = version["gitVersion"].as_str().unwrap_or_default().to_owned();
    let configuration = stored.as_ref().and_then(|m| m["data"]["ClusterConfiguration"].as_str());
    let stored = configuration.and_then(stored_version);
    // Only an upgrade has to know it, and only that of a minor.
    let upgrade = version != want.version.tag() || stored.as_ref().is_some_and(|v| *v != want.version.tag());
    let nodes = nodes?;
    let nodes = nodes["items"].as_array().into_iter().flatten();
    let nodes: BTreeMap<String, NodeSeen> =
        nodes.filter_map(|n| Some((n["metadata"]["name"].as_str()?.to_owned(), node::read(n)))).collect();
    let tokens = tokens?;
    let (workload, config) = proxies?;
    let (kubelets, noted) = kubelets?;
    let kubelets = kubelets.as_ref().and_then(|m| m["data"]["kubelet"].as_str());
    Ok(ClusterSeen {
        ca: seen.hosts.get(lead).and_then(HostSeen::ca).unwrap_or_default().to_owned(),
        lead: lead.to_owned(),
        vip_fault: None,
        version,
        missing: missing?,
        nodes,
        etcd: Vec::new(),
        etcd_fault: None,
        begins_anew: configuration.is_some_and(existing::begins_anew),
        stored,
        restored: restored?.and_then(|m| m["data"]["sha256"].as_str().map(str::to_owned)),
        proxy: workload.as_ref().and_then(image_tag),
        proxy_mode: config.as_ref().and_then(proxy::mode_of),
        proxy_stale: config.as_ref().zip(workload.as_ref()).is_some_and(|(c, w)| proxy::stale(c, w)),
        kubelet: kubelets.map(fields::read),
        kubelet_noted: noted.as_ref().map(fields::noted).unwrap_or_default(),
        requests: serving::requests(&requests?, &want.nodes),
        approver: approver?,
        calico: if upgrade { calico(api).await? } else { None },
        tokens: tokens["items"].as_array().into_iter().flatten().filter_map(token::ours).collect(),
    })
}

/// `kubernetesVersion` of the configuration that kubeadm stored.
fn stored_version(text: &str) -> Option<String> {
    let config: Value = serde_saphyr::from_str(text).ok()?;
    config["kubernetesVersion"].as_str().map(str::to_owned)
}

/// The tag of the image of a workload's first container.
fn image_tag(workload: &Value) -> Option<String> {
    let image = workload["spec"]["template"]["spec"]["containers"][0]["image"].as_str()?;
    let image = image.split('@').next()?;
    image.rsplit_once(':').map(|(_, tag)| tag.to_owned()).filter(|t| !t.contains('/'))
}

/// The version of Calico that runs, installed by its operator or by its plain manifest.
async fn calico(api: &Api) -> Result<Option<String>, ApiError> {
    for namespace in ["calico-system", "kube-system"] {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/calico-node");
        if let Some(found) = api.find(&path).await? {
            return Ok(image_tag(&found));
        }
    }
    Ok(None)
}

/// What kubeadm's init leaves last; only asked for while an init of ours was not seen through, for a person may well
/// do without some of it later.
fn missing(api: &Api, unfinished: bool) -> BoxFuture<'_, Result<BTreeSet<String>, ApiError>> {
    async move {
        let mut missing = BTreeSet::new();
        if !unfinished {
            return Ok(missing);
        }
        for (what, path) in [
            ("ConfigMap kubeadm-config", "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
            ("ConfigMap kubelet-config", "/api/v1/namespaces/kube-system/configmaps/kubelet-config"),
            ("ConfigMap cluster-info", "/api/v1/namespaces/kube-public/configmaps/cluster-info"),
            ("DaemonSet kube-proxy", "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy"),
        ] {
            if api.find(path).await?.is_none() {
                missing.insert(what.to_owned());
            }
        }
        Ok(missing)
    }
    .boxed()
}

async fn etcd_of(world: &World, candidates: &[String], cluster: &mut ClusterSeen) {
    // The lead first, then whoever else may know.
    let order = std::iter::once(&cluster.lead).chain(candidates.iter().filter(|c| **c != cluster.lead));
    let mut fault = None;
    for name in order {
        let Some(host) = world.fleet.get(name) else { continue };
        match etcd::members(host).await {
            Ok(members) => {
                cluster.etcd = members;
                return;
            }
            Err(why) => fault = fault.or(Some(format!("on {name}: {why}"))),
        }
    }
    cluster.etcd_fault = fault;
}
