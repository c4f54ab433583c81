//! `kubeadm upgrade`.

use std::time::Duration;

use serde_json::{Value, json};

use super::config::Config;
use super::pki::Subject;
use super::{Flags, Words, cluster, credentials, host_name, images, init, manifests, objects, tokens};
use crate::hosts::etcd;
use crate::hosts::programs::{Ctx, Output};

const SYSTEM: &str = "kube-system";
/// How long the restart of a static pod takes: the recorded upgrade took 218 s for four.
const RESTART: Duration = Duration::from_secs(50);

/// `kubeadm upgrade apply VERSION`.
pub async fn apply(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = applied(ctx, args, &mut words).await;
    words.end(result)
}

/// `kubeadm upgrade node`.
pub async fn node(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = noded(ctx, args, &mut words).await;
    words.end(result)
}

/// `kubeadm upgrade node phase kubelet-config`: this node's file from the cluster's copy; the kubelet is not restarted.
pub async fn kubelet_config(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = async {
        Flags::parse(args, &["kubeconfig"])?;
        if !ctx.root() {
            return Err("this command must be run as root".to_string());
        }
        let (_, config) = reading(ctx, &mut words).await?;
        ctx.changes();
        kubelet(ctx, &config, &mut words);
        Ok(())
    };
    let result = result.await;
    words.end(result)
}

/// Major and minor as numbers, and the patch.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split('.').skip(1).map(|p| p.parse().ok());
    Some((parts.next()??, parts.next()??))
}

async fn reading(ctx: &Ctx, words: &mut Words) -> Result<(String, Config), String> {
    words.out("[upgrade] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
    words.out(
        "[upgrade] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.",
    );
    stored(ctx).await
}

/// The cluster's id and stored configuration, with what this machine adds to it.
///
/// # Errors
/// kubeadm's text when the cluster cannot be asked.
pub async fn stored(ctx: &Ctx) -> Result<(String, Config), String> {
    let id = match tokens::admin(ctx).await {
        Ok((_, id)) => id,
        // A worker has no admin.conf: its kubelet's own credentials read the configuration.
        Err(_) if !ctx.machine().fs.exists("/etc/kubernetes/admin.conf") => worker(ctx).await?,
        Err(e) => return Err(format!("error execution phase preflight: failed to get config map: {e}")),
    };
    let mut config = objects::read_configuration(&ctx.hosts, &id)
        .map_err(|e| format!("error execution phase preflight: {e}"))?;
    let machine = ctx.machine();
    config.node_name = manifests::node_name(&machine).unwrap_or_else(|| host_name(&machine));
    config.advertise = machine.boot.address;
    config.port = manifests::api_port(&machine);
    Ok((id, config))
}

async fn worker(ctx: &Ctx) -> Result<String, String> {
    let (server, id) = {
        let machine = ctx.machine();
        let conf = machine.fs.text("/etc/kubernetes/kubelet.conf");
        let server = conf.lines().find_map(|l| l.trim().strip_prefix("server: ")).unwrap_or_default();
        (server.trim_start_matches("https://").to_string(), cluster::cluster_id(&machine).unwrap_or_default())
    };
    if server.is_empty() {
        return Err("error execution phase preflight: couldn't create a Kubernetes client from file \"/etc/kubernetes/kubelet.conf\": \
                    failed to load admin kubeconfig: open /etc/kubernetes/kubelet.conf: no such file or directory"
            .into());
    }
    super::discovery::reach(ctx, &server)
        .await
        .map_err(|e| format!("error execution phase preflight: {e}"))?;
    if !etcd::quorate(&ctx.hosts, &id) {
        return Err(
            "error execution phase preflight: failed to get config map: context deadline exceeded".into()
        );
    }
    Ok(id)
}

fn fatal(words: &mut Words, name: &str, text: &str) -> String {
    words.err(format!(
        "[preflight] Some fatal errors occurred:\n\t[ERROR {name}]: {text}\n[preflight] If you know what you are doing, you can make a check \
         non-fatal with `--ignore-preflight-errors=...`"
    ));
    "error execution phase preflight: preflight checks failed".to_string()
}

/// The checks of a cluster's health: every control plane is Ready, and has its manifests.
fn health(ctx: &Ctx, id: &str, words: &mut Words) -> Result<(), String> {
    words.out("[upgrade] Running cluster health checks");
    let planes = planes(ctx, id);
    let ready = |n: &&Value| {
        let conditions = n["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let ill: Vec<&str> =
        planes.iter().filter(|n| !ready(n)).filter_map(|n| n["metadata"]["name"].as_str()).collect();
    if !ill.is_empty() {
        let text = format!("there are NotReady control-planes in the cluster: [{}]", ill.join(" "));
        let _ = fatal(words, "ControlPlaneNodesReady", &text);
        return Err("error execution phase preflight: preflight checks failed".into());
    }
    Ok(())
}

fn planes(ctx: &Ctx, id: &str) -> Vec<Value> {
    let nodes = ctx.hosts.kube().list(id, "v1", "Node");
    let label = "node-role.kubernetes.io/control-plane";
    nodes.into_iter().filter(|n| n["metadata"]["labels"].get(label).is_some()).collect()
}

async fn applied(ctx: &mut Ctx, args: &[String], words: &mut Words) -> Result<(), String> {
    let flags = Flags::parse(args, &["yes", "ignore-preflight-errors", "config"])?;
    if flags.get("config").is_some() {
        ctx.unknown = true;
        return Err("the lab knows no configuration of an upgrade".into());
    }
    let target = flags.words.first().cloned().unwrap_or_default();
    let (id, mut config) = reading(ctx, words).await?;
    words.out("[upgrade/preflight] Running preflight checks");
    if !ctx.root() {
        return Err(fatal(words, "IsPrivilegedUser", "user is not running as root"));
    }
    health(ctx, &id, words)?;
    words.out(format!("[upgrade/preflight] You have chosen to upgrade the cluster version to \"{target}\""));
    words.out(format!("[upgrade/versions] Cluster version: {}", config.version));
    let own = images::own_version(&ctx.machine());
    words.out(format!("[upgrade/versions] kubeadm version: {own}"));
    policy(&target, &own, &config.version)?;
    if !flags.on("yes") {
        words.out("[upgrade] Are you sure you want to proceed? [y/N]: ");
        return Err("error execution phase preflight: won't proceed; the user didn't answer (Y|y) in order to continue".into());
    }
    ctx.changes();
    config.version = target.clone();
    pull(ctx, &config, words).await;
    words.out(format!(
        "[upgrade/control-plane] Upgrading your static Pod-hosted control plane to version \"{target}\" (timeout: 5m0s)..."
    ));
    static_pods(ctx, &config, words).await?;
    words.out("[upgrade/control-plane] The control plane instance for this node was successfully upgraded!");
    words.out("[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace");
    objects::configuration(&ctx.hosts, &id, &config);
    words.out("[kubelet] Creating a ConfigMap \"kubelet-config\" in namespace kube-system with the configuration for the kubelets in the cluster");
    words.out("[upgrade/kubeconfig] The kubeconfig files for this node were successfully upgraded!");
    kubelet(ctx, &config, words);
    words.out("[upgrade/bootstrap-token] Configuring bootstrap token and cluster-info RBAC rules");
    init::bootstrap_rules(words);
    addons(ctx, &id, &config, words);
    words.out(format!(
        "\n[upgrade] SUCCESS! A control plane node of your cluster was upgraded to \"{target}\".\n"
    ));
    words.out(
        "[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order.",
    );
    Ok(())
}

/// kubeadm's version policy (cmd/kubeadm/app/phases/upgrade/policy.go).
fn policy(target: &str, own: &str, cluster: &str) -> Result<(), String> {
    let (Some(wanted), Some(kubeadm), Some(runs)) = (numbers(target), numbers(own), numbers(cluster)) else {
        return Err(format!("couldn't parse the version \"{target}\""));
    };
    let mut found = Vec::new();
    if wanted > kubeadm {
        found.push(format!(
            "Specified version to upgrade to \"{target}\" is higher than the kubeadm version \"{own}\". Upgrade kubeadm first using the tool \
             you used to install kubeadm"
        ));
    }
    if wanted.0 > runs.0 + 1 {
        found.push(format!(
            "Specified version to upgrade to \"{target}\" is too high; kubeadm can upgrade only 1 minor version at a time"
        ));
    }
    if wanted.0 + 1 < runs.0 {
        found.push(format!("Specified version to downgrade to \"{target}\" is too low; kubeadm can downgrade only 1 minor version at a time"));
    }
    if kubeadm.0 > wanted.0 {
        found.push(format!(
            "Kubeadm version {own} can only be used to upgrade to Kubernetes version 1.{}",
            kubeadm.0
        ));
    }
    if found.is_empty() {
        return Ok(());
    }
    let lines: String = found.iter().map(|f| format!("\t- {f}\n")).collect();
    Err(format!(
        "error execution phase preflight: the --version argument is invalid due to these fatal errors:\n\n{lines}\nPlease fix the misalignments \
         highlighted above and try upgrading again"
    ))
}

async fn pull(ctx: &mut Ctx, config: &Config, words: &mut Words) {
    words.out("[upgrade/preflight] Pulling images required for setting up a Kubernetes cluster");
    words.out(
        "[upgrade/preflight] This might take a minute or two, depending on the speed of your internet connection",
    );
    words.out(
        "[upgrade/preflight] You can also perform this action beforehand using 'kubeadm config images pull'",
    );
    init::pull(ctx, config).await;
}

/// Each static pod in turn: its certificates renewed, its manifest replaced, its restart waited for.
async fn static_pods(ctx: &mut Ctx, config: &Config, words: &mut Words) -> Result<(), String> {
    let tmp = "/etc/kubernetes/tmp";
    words.out(format!("[upgrade/staticpods] Writing new Static Pod manifests to \"{tmp}/kubeadm-upgraded-manifests271924281\""));
    let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
    let certificates: [(&str, &[&str]); 4] = [
        ("etcd", &["etcd-server", "etcd-peer", "etcd-healthcheck-client"]),
        (
            "kube-apiserver",
            &["apiserver", "apiserver-kubelet-client", "front-proxy-client", "apiserver-etcd-client"],
        ),
        ("kube-controller-manager", &["controller-manager.conf"]),
        ("kube-scheduler", &["scheduler.conf"]),
    ];
    let mut members = 0;
    for (pod, renewed) in certificates {
        words.out(format!("[upgrade/staticpods] Preparing for \"{pod}\" upgrade"));
        {
            let mut machine = ctx.machine();
            for name in renewed {
                words.out(format!("[upgrade/staticpods] Renewing {name} certificate"));
                super::certs::renew_one(&mut machine, config, name)?;
            }
            match pod {
                "etcd" => {
                    let own = [(config.node_name.clone(), address.clone())];
                    manifests::etcd(&mut machine, config, &config.node_name, &address, &own);
                }
                pod => manifests::one(&mut machine, config, &address, pod),
            }
        }
        words.out(format!(
            "[upgrade/staticpods] Moving new manifest to \"/etc/kubernetes/manifests/{pod}.yaml\" and backing up old manifest to \
             \"{tmp}/kubeadm-backup-manifests-2026-11-20-22-39-26/{pod}.yaml\""
        ));
        words.out("[upgrade/staticpods] Waiting for the kubelet to restart the component");
        words.out("[upgrade/staticpods] This can take up to 5m0s");
        ctx.hosts.settle();
        ctx.hosts.world().clock.wait(RESTART).await;
        if members == 0 {
            let id = cluster::cluster_id(&ctx.machine()).unwrap_or_default();
            members = ctx.hosts.etcd_members(&id).len();
        }
        words.out(format!("[apiclient] Found {members} Pods for label selector component={pod}"));
        words.out(format!("[upgrade/staticpods] Component \"{pod}\" upgraded successfully!"));
        if pod == "etcd" {
            words.out("[upgrade/etcd] Waiting for etcd to become available");
        }
    }
    // It renews what is left of the certificates too.
    let mut machine = ctx.machine();
    for name in ["admin.conf", "super-admin.conf"] {
        super::certs::renew_one(&mut machine, config, name)?;
    }
    Ok(())
}

fn kubelet(ctx: &mut Ctx, config: &Config, words: &mut Words) {
    words.out("[upgrade] Backing up kubelet config file to /etc/kubernetes/tmp/kubeadm-kubelet-config-2026-11-20-22-42-57/config.yaml");
    words.out("[patches] Applied patch of type \"application/strategic-merge-patch+json\" to target \"kubeletconfiguration\"");
    words.out("[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"");
    manifests::kubelet(&mut ctx.machine(), config, &config.node_name);
    words.out("[upgrade/kubelet-config] The kubelet configuration for this node was successfully upgraded!");
}

/// CoreDNS and kube-proxy: brought along by the last control plane.
fn addons(ctx: &Ctx, id: &str, config: &Config, words: &mut Words) {
    let all = ctx.hosts.all();
    let behind: Vec<String> = planes(ctx, id)
        .iter()
        .filter_map(|n| n["metadata"]["name"].as_str().map(str::to_owned))
        .filter(|name| {
            all.iter().any(|h| {
                let machine = h.machine();
                machine.boot.name == *name && manifests::api_version(&machine) != config.version
            })
        })
        .collect();
    if !behind.is_empty() {
        let line = format!(
            "[upgrade/addon] Skipping upgrade of addons because control plane instances [{}] have not been upgraded",
            behind.join(" ")
        );
        words.out(&line);
        words.out(&line);
        return;
    }
    let kube = ctx.hosts.kube();
    for (kind, name) in [("Deployment", "coredns"), ("DaemonSet", "kube-proxy")] {
        let Some(mut object) = kube.get(id, "apps/v1", kind, Some(SYSTEM), name) else { continue };
        let wanted = images::of(&config.version, &config.registry);
        if let Some(image) = wanted.iter().find(|i| i.contains(&format!("/{name}:"))) {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
            // kubeadm puts its own template in place of the one that is there.
            object["spec"]["template"]["metadata"]["annotations"] = json!({});
            kube.put(id, object);
        }
    }
    objects::proxy(&ctx.hosts, id, config);
    words.out("[addons] Applied essential addon: CoreDNS\n[addons] Applied essential addon: kube-proxy");
}

async fn noded(ctx: &mut Ctx, args: &[String], words: &mut Words) -> Result<(), String> {
    Flags::parse(args, &["ignore-preflight-errors"])?;
    let (id, config) = reading(ctx, words).await?;
    words.out("[upgrade/preflight] Running pre-flight checks");
    if !ctx.root() {
        return Err(fatal(words, "IsPrivilegedUser", "user is not running as root"));
    }
    let plane = ctx.machine().fs.exists("/etc/kubernetes/manifests/kube-apiserver.yaml");
    let own = images::own_version(&ctx.machine());
    // kubeadm writes manifests of the cluster's version, as long as it is no newer than its own.
    if numbers(&config.version) > numbers(&own) {
        return Err(format!(
            "error execution phase preflight: this version of kubeadm only supports deploying clusters with the control plane version >= \
             1.{}.0. Current version: {}",
            numbers(&own).map_or(0, |n| n.0.saturating_sub(1)),
            config.version
        ));
    }
    ctx.changes();
    if !plane {
        words.out("[upgrade/preflight] Skipping prepull. Not a control plane node.");
        words.out("[upgrade/control-plane] Skipping phase. Not a control plane node.");
        words.out("[upgrade/kubeconfig] Skipping phase. Not a control plane node.");
        kubelet(ctx, &config, words);
        words.out("[upgrade/addon] Skipping the addon/coredns phase. Not a control plane node.");
        words.out("[upgrade/addon] Skipping the addon/kube-proxy phase. Not a control plane node.");
        return Ok(());
    }
    pull(ctx, &config, words).await;
    words.out(format!(
        "[upgrade/control-plane] Upgrading your Static Pod-hosted control plane instance to version \"{}\"...",
        config.version
    ));
    static_pods(ctx, &config, words).await?;
    words.out("[upgrade/control-plane] The control plane instance for this node was successfully upgraded!");
    words.out("[upgrade/kubeconfig] The kubeconfig files for this node were successfully upgraded!");
    kubelet(ctx, &config, words);
    addons(ctx, &id, &config, words);
    Ok(())
}

/// Who a certificate of kubeadm's is for, its file below `/etc/kubernetes` and its authority.
pub fn subject(config: &Config, name: &str) -> Option<(&'static str, &'static str, Subject)> {
    let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
    let etcd = || {
        let mut names = vec![config.node_name.clone(), "localhost".into()];
        names.sort();
        Subject {
            name: config.node_name.clone(),
            sans: [names, vec![address.clone(), "127.0.0.1".into(), "::1".into()]].concat(),
            server: true,
            client: true,
            ..Subject::default()
        }
    };
    Some(match name {
        "apiserver" => {
            ("pki/apiserver", "ca", credentials::api_subject(config, &config.node_name, &address).0)
        }
        "apiserver-kubelet-client" => (
            "pki/apiserver-kubelet-client",
            "ca",
            Subject::client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins"),
        ),
        "apiserver-etcd-client" => {
            ("pki/apiserver-etcd-client", "etcd/ca", Subject::client("kube-apiserver-etcd-client", ""))
        }
        "front-proxy-client" => {
            ("pki/front-proxy-client", "front-proxy-ca", Subject::client("front-proxy-client", ""))
        }
        "etcd-server" => ("pki/etcd/server", "etcd/ca", etcd()),
        "etcd-peer" => ("pki/etcd/peer", "etcd/ca", etcd()),
        "etcd-healthcheck-client" => {
            ("pki/etcd/healthcheck-client", "etcd/ca", Subject::client("kube-etcd-healthcheck-client", ""))
        }
        "admin.conf" => ("admin.conf", "ca", Subject::client("kubernetes-admin", "kubeadm:cluster-admins")),
        "super-admin.conf" => {
            ("super-admin.conf", "ca", Subject::client("kubernetes-super-admin", "system:masters"))
        }
        "controller-manager.conf" => {
            ("controller-manager.conf", "ca", Subject::client("system:kube-controller-manager", ""))
        }
        "scheduler.conf" => ("scheduler.conf", "ca", Subject::client("system:kube-scheduler", "")),
        _ => return None,
    })
}
