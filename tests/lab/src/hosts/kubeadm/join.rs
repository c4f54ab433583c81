//! `kubeadm join`.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config::{Config, Join};
use super::discovery::{Found, discover};
use super::pki::{self, Subject};
use super::preflight::{self, Purpose};
use super::{Flags, Words, credentials, host_name, init, kubelet, manifests, objects};
use crate::hosts::etcd;
use crate::hosts::programs::{Ctx, Output};
use crate::hosts::units::State;

const KNOWN: [&str; 10] = [
    "config",
    "token",
    "discovery-token",
    "tls-bootstrap-token",
    "discovery-token-ca-cert-hash",
    "discovery-token-unsafe-skip-ca-verification",
    "control-plane",
    "certificate-key",
    "ignore-preflight-errors",
    "apiserver-advertise-address",
];

fn begin(ctx: &Ctx, args: &[String]) -> Result<(Flags, Config, Join), String> {
    let flags = Flags::parse(args, &KNOWN)?;
    let machine = ctx.machine();
    let mut config = match flags.get("config") {
        Some(path) => init::load(&machine, path)?,
        None => {
            let skip = if flags.on("discovery-token-unsafe-skip-ca-verification") {
                "\n    unsafeSkipCAVerification: true"
            } else {
                ""
            };
            let hashes: String = flags
                .list("discovery-token-ca-cert-hash")
                .iter()
                .map(|h| format!("\n    - \"{h}\""))
                .collect();
            let hashes =
                if hashes.is_empty() { String::new() } else { format!("\n    caCertHashes:{hashes}") };
            let key = flags
                .get("certificate-key")
                .map(|k| format!("\n  certificateKey: \"{k}\""))
                .unwrap_or_default();
            let plane = if flags.on("control-plane") {
                format!("\ncontrolPlane:\n  localAPIEndpoint: {{}}{key}")
            } else {
                String::new()
            };
            let text = format!(
                "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n    token: \"{}\"\n    \
                 apiServerEndpoint: \"{}\"{hashes}{skip}{plane}\n",
                flags.get("token").or(flags.get("discovery-token")).unwrap_or_default(),
                flags.words.first().map(String::as_str).unwrap_or_default()
            );
            super::config::read(&text)?
        }
    };
    if config.node_name.is_empty() {
        config.node_name = host_name(&machine);
    }
    config.advertise = config.advertise.or(machine.boot.address);
    let join = config.join.clone().ok_or("no JoinConfiguration found in the config file")?;
    Ok((flags, config, join))
}

/// `kubeadm join`.
pub async fn run(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, config, join) = match begin(ctx, args) {
        Ok(begun) => begun,
        Err(e) => return Words::default().end(Err(e)),
    };
    let mut words = Words::default();
    let result = phases(ctx, &flags, config, &join, &mut words).await;
    words.end(result)
}

async fn phases(
    ctx: &mut Ctx,
    flags: &Flags,
    mut config: Config,
    join: &Join,
    words: &mut Words,
) -> Result<(), String> {
    words.out("[preflight] Running pre-flight checks");
    let ignore = [config.ignore.clone(), flags.list("ignore-preflight-errors")].concat();
    preflight::check(&ctx.machine(), &config, Purpose::Join, &ignore, ctx.root(), words)?;
    let found = discover(ctx, &config, join).await?;
    words.out("[preflight] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"...");
    words.out("[preflight] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it.");
    let wrap = |e: String| {
        format!("error execution phase preflight: unable to fetch the kubeadm-config ConfigMap: {e}")
    };
    if !etcd::quorate(&ctx.hosts, &found.id) {
        return Err(wrap(format!(
            "failed to get config map: Get \"{}\": context deadline exceeded",
            found.server
        )));
    }
    let stored = objects::read_configuration(&ctx.hosts, &found.id).map_err(wrap)?;
    config = Config {
        version: stored.version,
        endpoint: stored.endpoint,
        pod_subnet: stored.pod_subnet,
        service_subnet: stored.service_subnet,
        domain: stored.domain,
        cluster: stored.cluster,
        registry: stored.registry,
        sans: stored.sans,
        extra: stored.extra,
        kubelet: stored.kubelet,
        ..config
    };
    ctx.changes();
    if join.control_plane {
        prepare_control_plane(ctx, &config, &ignore, &found, words).await?;
    }
    start_kubelet(ctx, &config, &found, words)?;
    if join.control_plane {
        join_etcd(ctx, &config, &found, words).await?;
    }
    wait_kubelet(ctx, &found, words).await?;
    let clock = ctx.hosts.world().clock;
    let name = config.node_name.clone();
    if join.control_plane {
        registered(ctx, &found.id, &name).await?;
        init::mark(words, &name);
        let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
        init::healthy(words, &address, config.port, "4m0s");
        words.out(CONTROL_PLANE_JOINED);
    } else {
        clock.wait(Duration::from_secs(1)).await;
        words.out(WORKER_JOINED);
    }
    Ok(())
}

/// The phase mark-control-plane patches the node, and so waits for it (PatchNode of cmd/kubeadm/app/util/apiclient, for
/// a minute at most).
async fn registered(ctx: &Ctx, cluster: &str, name: &str) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while ctx.hosts.kube().get(cluster, "v1", "Node", None, name).is_none() {
        if tokio::time::Instant::now() > deadline {
            return Err(format!(
                "error execution phase control-plane-join/mark-control-plane: error applying control-plane label and taints: nodes \"{name}\" not found"
            ));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn prepare_control_plane(
    ctx: &mut Ctx,
    config: &Config,
    ignore: &[String],
    found: &Found,
    words: &mut Words,
) -> Result<(), String> {
    let Some(key) = config.certificate_key.clone() else {
        let missing = missing_certificates(ctx);
        if !missing.is_empty() {
            return Err(format!(
                "error execution phase preflight: \nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n[{}]\n\n\
                 Please ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must be shared among \
                 control plane instances are provided.\n\n",
                missing.join(", ")
            ));
        }
        return Ok(());
    };
    words.out("[preflight] Running pre-flight checks before initializing the new control plane instance");
    preflight::check(&ctx.machine(), config, Purpose::ControlPlane, ignore, true, words)?;
    words.out("[preflight] Pulling images required for setting up a Kubernetes cluster");
    words.out(
        "[preflight] This might take a minute or two, depending on the speed of your internet connection",
    );
    words.out("[preflight] You can also perform this action beforehand using 'kubeadm config images pull'");
    init::pull(ctx, config).await;
    words.out("[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace");
    let files = objects::download_certificates(&ctx.hosts, &found.id, &key)
        .map_err(|e| format!("error execution phase control-plane-prepare/download-certs: {e}"))?;
    words.out(format!("[download-certs] Saving the certificates to the folder: \"{}\"", pki::DIR));
    let mut machine = ctx.machine();
    for (path, content) in files {
        let mode = if path.ends_with(".key") || path.ends_with(".pub") { 0o600 } else { 0o644 };
        machine.fs.put(&path, content, mode, "root", "root");
    }
    words.out(format!("[certs] Using certificateDir folder \"{}\"", pki::DIR));
    let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
    let mut said = Words::default();
    credentials::certificates(&mut machine, config, &config.node_name, &address, &mut said)?;
    // A join says nothing of the authorities that it downloaded.
    for line in said.out.lines().filter(|l| !l.ends_with("certificate authority")) {
        words.out(line);
    }
    words.out(
        "[kubeconfig] Generating kubeconfig files\n[kubeconfig] Using kubeconfig folder \"/etc/kubernetes\"",
    );
    let server = init::endpoint(config);
    let local = format!("https://{address}:{}", config.port);
    let all = [
        ("admin.conf", &server, Subject::client("kubernetes-admin", "kubeadm:cluster-admins")),
        ("controller-manager.conf", &local, Subject::client("system:kube-controller-manager", "")),
        ("scheduler.conf", &local, Subject::client("system:kube-scheduler", "")),
    ];
    for (file, server, subject) in all {
        words.out(format!("[kubeconfig] Writing \"{file}\" kubeconfig file"));
        pki::kubeconfig(&mut machine, file, &config.cluster, server, &subject)?;
    }
    init::announce_manifests(words);
    manifests::control_plane(&mut machine, config, &address);
    drop(machine);
    words.out("[check-etcd] Checking that the etcd cluster is healthy");
    Ok(())
}

fn missing_certificates(ctx: &Ctx) -> Vec<String> {
    let machine = ctx.machine();
    let wanted = [
        ("certificate for CA", "certificate", "ca.crt"),
        ("key for service account", "private key", "sa.key"),
        ("certificate for front-proxy CA", "certificate", "front-proxy-ca.crt"),
        ("certificate for etcd CA", "certificate", "etcd/ca.crt"),
    ];
    let missing = wanted.iter().filter(|(_, _, file)| !machine.fs.exists(&format!("{}/{file}", pki::DIR)));
    missing
        .map(|(what, kind, file)| {
            let path = format!("{}/{file}", pki::DIR);
            format!("failure loading {what}: couldn't load the {kind} file {path}: open {path}: no such file or directory")
        })
        .collect()
}

fn start_kubelet(ctx: &mut Ctx, config: &Config, found: &Found, words: &mut Words) -> Result<(), String> {
    let mut machine = ctx.machine();
    machine.fs.put(&format!("{}/ca.crt", pki::DIR), found.ca.clone(), 0o644, "root", "root");
    words.out(
        "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/instance-config.yaml\"",
    );
    words.out("[patches] Applied patch of type \"application/strategic-merge-patch+json\" to target \"kubeletconfiguration\"");
    words.out("[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"");
    words.out("[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\"");
    manifests::kubelet(&mut machine, config, &config.node_name);
    words.out("[kubelet-start] Starting the kubelet");
    kubelet::start(&mut machine)
}

async fn join_etcd(ctx: &mut Ctx, config: &Config, found: &Found, words: &mut Words) -> Result<(), String> {
    let wrap = |e: String| {
        format!("error execution phase etcd-join: error creating local etcd static pod manifest file: {e}")
    };
    let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
    if !etcd::quorate(&ctx.hosts, &found.id) {
        return Err(wrap("etcdserver: request timed out".into()));
    }
    let (member, all) = {
        let mut clusters = ctx.hosts.etcd();
        let cluster = clusters.get_mut(&found.id).ok_or_else(|| wrap("context deadline exceeded".into()))?;
        let member = cluster.add(&config.node_name, &address).map_err(wrap)?;
        let all: Vec<(String, String)> =
            cluster.members.iter().map(|m| (m.name.clone(), m.address.clone())).collect();
        (member, all)
    };
    words.out("[etcd] Announced new etcd member joining to the existing etcd cluster");
    words.out("[etcd] Creating static Pod manifest for \"etcd\"");
    {
        let mut machine = ctx.machine();
        manifests::etcd(&mut machine, config, &config.node_name, &address, &all);
        etcd::store(&mut machine, &found.id, &member);
    }
    words.out("[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s");
    ctx.hosts.world().clock.wait(Duration::from_secs(15)).await;
    if let Some(cluster) = ctx.hosts.etcd().get_mut(&found.id) {
        cluster.promote(member.id);
    }
    Ok(())
}

async fn wait_kubelet(ctx: &mut Ctx, found: &Found, words: &mut Words) -> Result<(), String> {
    let clock = ctx.hosts.world().clock;
    words.out("[kubelet-check] Waiting for a healthy kubelet at http://127.0.0.1:10248/healthz. This can take up to 4m0s");
    if ctx.machine().services.get("kubelet").state != State::Active {
        clock.wait(Duration::from_secs(240)).await;
        words.out("[kubelet-check] The kubelet is not healthy after 4m0.000946199s");
        words.out(
            "\nUnfortunately, an error has occurred, likely caused by:\n\t- The kubelet is not running\n\t- The kubelet is unhealthy due to a \
             misconfiguration of the node in some way (required cgroups disabled)\n\nIf you are on a systemd-powered system, you can try to \
             troubleshoot the error with the following commands:\n\t- 'systemctl status kubelet'\n\t- 'journalctl -xeu kubelet'\n",
        );
        return Err("error execution phase kubelet-wait-bootstrap: failed while waiting for the kubelet to start: The HTTP call equal to \
                    'curl -sSL http://127.0.0.1:10248/healthz' returned error: Get \"http://127.0.0.1:10248/healthz\": dial tcp \
                    127.0.0.1:10248: connect: connection refused\n"
            .into());
    }
    words.out("[kubelet-check] The kubelet is healthy after 501.417262ms");
    words.out("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
    {
        let mut machine = ctx.machine();
        let conf = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: {}\n    server: {}\n  name: default-cluster\n\
             contexts:\n- context:\n    cluster: default-cluster\n    namespace: default\n    user: default-auth\n  name: default-context\n\
             current-context: default-context\nkind: Config\nusers:\n- name: default-auth\n  user:\n    client-certificate: \
             /var/lib/kubelet/pki/kubelet-client-current.pem\n    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem\n",
            STANDARD.encode(&found.ca),
            found.server
        );
        machine.fs.put("/etc/kubernetes/kubelet.conf", conf, 0o600, "root", "root");
    }
    ctx.hosts.settle();
    Ok(())
}

const WORKER_JOINED: &str = "\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was received.\n\
* The Kubelet was informed of the new secure connection details.\n\nRun 'kubectl get nodes' on the control-plane to see this node join the cluster.\n";

const CONTROL_PLANE_JOINED: &str = "\nThis node has joined the cluster and a new control plane instance was created:\n\n\
* Certificate signing request was sent to apiserver and approval was received.\n* The Kubelet was informed of the new secure connection details.\n\
* Control plane label and taint were applied to the new node.\n* The Kubernetes control plane instances scaled up.\n\
* A new etcd member was added to the local/stacked etcd cluster.\n\nTo start administering your cluster from this node, you need to run the \
following as a regular user:\n\n\tmkdir -p $HOME/.kube\n\tsudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config\n\
\tsudo chown $(id -u):$(id -g) $HOME/.kube/config\n\nRun 'kubectl get nodes' to see this node join the cluster.\n";
