//! One step: do it, wait until it is seen.

use std::time::Duration;

use rand::Rng as _;
use remote::{Command, Host, RemoteFile};
use serde_json::json;
use stage::{Ctx, Failure, Waiting};

use crate::api::Api;
use crate::drain::{self, Drain};
use crate::existing::{self, Existing};
use crate::files::Etcd;
use crate::look::INTENT;
use crate::roll::{self, Kubelet};
use crate::step::Step;
use crate::want::{Node, Want};
use crate::{
    World, approver, certificate, certs, etcd, files, hosts, kubeconfig, kubelet, label, merge, observe,
    pins, proxy, restore, serving,
};

/// How long kubeadm may take for one machine.
pub(crate) const KUBEADM: Duration = Duration::from_secs(900);
/// How long evidence may take.
pub(crate) const EVIDENCE: Duration = Duration::from_secs(300);

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
        Step::Reset { host } => hosts::reset(on(host)?).await,
        Step::Start { host, unit } => hosts::start(on(host)?, unit).await,
        Step::Init { host, .. } => Box::pin(init(on(host)?, world, want, ctx)).await,
        Step::Existing { host, via, version, tag, stored, manifest } => {
            let (node, api) = (node_of(want, host)?, world.api(via, want).await?);
            let what = Existing { version, tag: tag.as_deref(), stored: *stored, manifest: *manifest };
            Box::pin(existing::keep(node, on(host)?, &what, &api, want, ctx)).await
        }
        Step::Join { host, control_plane, via, .. } => {
            let node = node_of(want, host)?;
            Box::pin(join(node, on(host)?, *control_plane, via, world, want, ctx)).await
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
            Box::pin(roll::control_plane(node_of(want, host)?, *first, world, want, ctx)).await
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
        Step::Renew { host } => Box::pin(certs::renew(node_of(want, host)?, on(host)?, want, ctx)).await,
        Step::Aside { host } => restore::aside(on(host)?).await,
        Step::Restore { host, backup, identity, content_sha256, .. } => {
            let node = node_of(want, host)?;
            Box::pin(restore::restore(node, backup, identity, content_sha256, world, want, ctx)).await
        }
        Step::Approver { via, .. } => {
            Box::pin(approver::install(&world.api(via, want).await?, &want.approver, ctx)).await
        }
        Step::Approve { via, request, sha256, .. } => {
            serving::approve(&world.api(via, want).await?, request, sha256, want, ctx).await
        }
        Step::DropToken { via, id } => drop_token(&world.api(via, want).await?, id).await,
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

/// The machine of this name; a plan names none that the document does not know.
fn node_of<'w>(want: &'w Want, name: &str) -> Result<&'w Node, Failure> {
    want.any(name).ok_or_else(|| Failure::internal(format!("no node {name}")))
}

/// Words that grant something, made here and told nobody but the machines concerned.
fn random(alphabet: &[u8], length: usize) -> String {
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(alphabet[rng.random_range(0..alphabet.len())])).collect()
}

/// The two halves of a bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
fn token() -> (String, String) {
    let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (random(alphabet, 6), random(alphabet, 16))
}

/// Runs kubeadm with a configuration that is there only while it runs, for root alone.
pub(crate) async fn with_config(
    host: &Host,
    name: &str,
    config: String,
    words: &[&str],
    doing: &str,
) -> Result<(), Failure> {
    // /run is memory: the secret reaches no disk.
    let path = format!("/run/kubeline-kadm-{name}.yaml");
    hosts::put(host, &RemoteFile::new(&path, config).mode(0o600), doing).await?;
    let command = Command::new("kubeadm").args(words.iter().copied()).args(["--config", &path]).sudo();
    let ran = hosts::kubeadm(host, &command.timeout(KUBEADM), doing).await;
    let removed = host.remove(&path).await.map_err(|e| fleet::failure(doing, &e));
    ran.and(removed.map(drop))
}

async fn init(host: &Host, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    let doing = format!("cannot initialise the cluster on {}", host.name());
    let node = node_of(want, host.name())?;
    let (id, secret) = token();
    let config = files::init(want, node, Some(&format!("{id}.{secret}")), None, Etcd::New)?;
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
    let (id, secret) = token();
    let config = files::init(want, node, Some(&format!("{id}.{secret}")), None, Etcd::Restored)?;
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
    drop_token(&api, id).await?;
    serving::first(&api, host, want, ctx).await?;
    Ok(api)
}

pub(crate) async fn wait_for_api(api: &Api, what: &str, ctx: &Ctx) -> Result<(), Failure> {
    ctx.wait_for(what, EVIDENCE, || async {
        Ok(match observe::reads(api).await {
            Ok(()) => Waiting::Seen(()),
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
}

async fn drop_token(api: &Api, id: &str) -> Result<(), Failure> {
    let deleted = api.delete(&format!("/api/v1/namespaces/kube-system/secrets/bootstrap-token-{id}")).await;
    deleted.map(drop).map_err(|e| e.failure(format!("cannot delete the bootstrap token {id}")))
}

/// A bootstrap token for one join (kubernetes.io, "Authenticating with Bootstrap Tokens").
async fn make_token(api: &Api, doing: &str) -> Result<(String, String), Failure> {
    let (id, secret) = token();
    let ends = std::time::SystemTime::now() + Duration::from_secs(900);
    let ends = ends.duration_since(std::time::UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "stringData": {
            "description": files::TOKEN_DESCRIPTION,
            "token-id": id,
            "token-secret": secret,
            "expiration": rfc3339(ends),
            "usage-bootstrap-authentication": "true",
            "usage-bootstrap-signing": "true",
            "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
        },
    });
    let made = api.create("/api/v1/namespaces/kube-system/secrets", &object).await;
    made.map_err(|e| e.failure(doing))?;
    Ok((id.clone(), format!("{id}.{secret}")))
}

/// Seconds since 1970 as RFC 3339 in UTC (days to civil date after Howard Hinnant's algorithm).
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, rest) = ((seconds / 86_400) as i64 + 719_468, seconds % 86_400);
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (d, m) =
        (day_of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + i64::from(m <= 2);
    format!("{year:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

async fn join(
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
    let answers = wait_for_api(&api, &what, ctx);
    let members = async { if control_plane { wait_for_etcd(helper, None, ctx).await } else { Ok(()) } };
    futures::try_join!(answers, members)?;
    let admin = world.admin_conf(via).await?;
    let ca = kubeconfig::ca_pem(&admin).and_then(|pem| certificate::key_pin(&pem));
    let ca =
        ca.ok_or_else(|| Failure::precondition(&doing).because(format!("admin.conf on {via} has no CA")))?;
    pins::enable(host, want).await?;
    let (id, token) = make_token(&api, &doing).await?;
    let joined = async {
        let key = async {
            if control_plane { uploaded(via, world, want, &doing).await.map(Some) } else { Ok(None) }
        };
        let (key, ()) = futures::try_join!(key, signed(&api, &id, ctx))?;
        let config = files::join(want, node, &token, &ca, key.as_deref())?;
        with_config(host, "join", config, &["join"], &doing).await
    };
    let joined = Box::pin(joined).await;
    let dropped = drop_token(&api, &id).await;
    joined.and(dropped)?;
    let stands = async {
        if !control_plane {
            return Ok(());
        }
        let (etcd, own) = (wait_for_etcd(helper, Some(&node.name), ctx), own_api(node, host, want, ctx));
        futures::try_join!(etcd, own).map(drop)
    };
    let served = Box::pin(serving::first(&api, host, want, ctx));
    futures::try_join!(registered(&api, &node.name, ctx), Box::pin(stands), served).map(drop)
}

/// Uploads the certificates for one join, and gives the key that opens them: the one before may have expired, and nobody
/// else knows this one.
async fn uploaded(via: &str, world: &World, want: &Want, doing: &str) -> Result<String, Failure> {
    let fresh = random(b"0123456789abcdef", 64);
    let config = files::init(want, node_of(want, via)?, None, Some(&fresh), Etcd::New)?;
    let words = ["init", "phase", "upload-certs", "--upload-certs"];
    let doing = format!("{doing}: cannot upload certificates on {via}");
    with_config(world.fleet.host(via)?, "upload", config, &words, &doing).await?;
    Ok(fresh)
}

/// Waits until the controller manager has signed what a joining machine trusts, with this token. A kubeadm that comes
/// sooner looks again after 5 s (kubernetes/cmd/kubeadm/app/constants, DiscoveryRetryInterval).
async fn signed(api: &Api, id: &str, ctx: &Ctx) -> Result<(), Failure> {
    let (path, key) =
        ("/api/v1/namespaces/kube-public/configmaps/cluster-info", format!("jws-kubeconfig-{id}"));
    ctx.wait_for("the signature of a bootstrap token", EVIDENCE, || async {
        Ok(match api.find(path).await {
            Ok(Some(map)) if map["data"][&key].is_string() => Waiting::Seen(()),
            Ok(Some(_)) => Waiting::NotYet("nobody signs it: does the controller manager run?".to_owned()),
            Ok(None) => Waiting::NotYet("there is no ConfigMap kube-public/cluster-info".to_owned()),
            Err(error) => Waiting::NotYet(error.to_string()),
        })
    })
    .await
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
        for path in ["/readyz", "/api/v1/namespaces/kube-system"] {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_written_as_the_api_reads_it() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(rfc3339(4_102_444_799), "2099-12-31T23:59:59Z");
    }

    #[test]
    fn tokens_have_the_shape_that_the_api_wants() {
        let (id, secret) = token();
        assert!((id.len(), secret.len()) == (6, 16) && id.chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(token(), token());
    }
}
