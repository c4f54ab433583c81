//! `kubeadm init`.

use std::time::Duration;

use super::config::{self, Config};
use super::credentials::{certificates, kubeconfigs};
use super::preflight::{self, Purpose};
use super::{Flags, Words, cluster, host_name, images, kubelet, manifests, objects, pki, tokens};
use crate::hosts::programs::{Ctx, Output};
use crate::hosts::units::State;
use crate::hosts::{Machine, etcd};

const KNOWN: [&str; 5] =
    ["config", "upload-certs", "ignore-preflight-errors", "skip-phases", "certificate-key"];

/// Reads a configuration file of the machine, with what depends on the machine filled in.
///
/// # Errors
/// kubeadm's text.
pub fn load(machine: &Machine, path: &str) -> Result<Config, String> {
    let missing = |e| format!("unable to read config from \"{path}\" : open {path}: {}", strerror(e));
    let content = machine.fs.read(path).map_err(missing)?;
    let mut config = config::read(&String::from_utf8_lossy(content))?;
    fill(machine, &mut config);
    Ok(config)
}

/// Go's words for an error of the file system.
fn strerror(e: crate::hosts::fs::Error) -> String {
    e.to_string().to_lowercase()
}

fn fill(machine: &Machine, config: &mut Config) {
    if config.node_name.is_empty() {
        config.node_name = host_name(machine);
    }
    config.version = match config.version.trim_start_matches('v') {
        "" => images::own_version(machine),
        version => format!("v{version}"),
    };
    config.advertise = config.advertise.or(machine.boot.address);
}

/// `kubeadm config validate`.
pub fn validate(ctx: &mut Ctx, args: &[String]) -> Output {
    let read = Flags::parse(args, &["config"]).and_then(|f| {
        let path = f.get("config").ok_or("the --config flag is mandatory")?.to_string();
        load(&ctx.machine(), &path)
    });
    match read {
        Ok(_) => Output::ok("ok\n"),
        Err(e) => Words::default().end(Err(e)),
    }
}

/// The flags and the configuration of a call.
///
/// # Errors
/// kubeadm's text.
pub fn begin(ctx: &Ctx, args: &[String]) -> Result<(Flags, Config), String> {
    let flags = Flags::parse(args, &KNOWN)?;
    let machine = ctx.machine();
    let config = match flags.get("config") {
        Some(path) => load(&machine, path)?,
        None => {
            let mut config = config::read("")?;
            fill(&machine, &mut config);
            config
        }
    };
    Ok((flags, config))
}

/// `kubeadm init phase preflight`.
pub fn preflight_only(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Words::default();
    let result = begin(ctx, args).and_then(|(flags, config)| {
        words.out("[preflight] Running pre-flight checks");
        let ignore = [config.ignore.clone(), flags.list("ignore-preflight-errors")].concat();
        preflight::check(&ctx.machine(), &config, Purpose::Init, &ignore, ctx.root(), &mut words)?;
        announce_images(&mut words);
        Ok(())
    });
    words.end(result)
}

/// `kubeadm init`.
pub async fn run(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, config) = match begin(ctx, args) {
        Ok(begun) => begun,
        Err(e) => return Words::default().end(Err(e)),
    };
    let skip = [config.skip.clone(), flags.list("skip-phases")].concat();
    if let Some(odd) =
        skip.iter().find(|s| !["addon/kube-proxy", "addon/coredns", "preflight"].contains(&s.as_str()))
    {
        return ctx.refuse(format!("kubeadm: the lab does not skip the phase {odd}"), 127);
    }
    let mut words = Words::default();
    ignored(&config, &mut words);
    let result = phases(ctx, &flags, &config, &skip, &mut words).await;
    words.end(result)
}

/// kubeadm's warning of fields that it does not know in a component's configuration; it goes on without them.
fn ignored(config: &Config, words: &mut Words) {
    for name in &config.unknown {
        words.err(format!(
            "W1120 22:10:07.000000    1234 configset.go:177] error unmarshaling configuration schema.GroupVersionKind{{Group:\"kubelet.config.k8s.io\", \
             Version:\"v1beta1\", Kind:\"KubeletConfiguration\"}}: strict decoding error: unknown field \"{name}\""
        ));
    }
}

fn announce_images(words: &mut Words) {
    words.out("[preflight] Pulling images required for setting up a Kubernetes cluster");
    words.out(
        "[preflight] This might take a minute or two, depending on the speed of your internet connection",
    );
    words.out("[preflight] You can also perform this action beforehand using 'kubeadm config images pull'");
}

async fn phases(
    ctx: &mut Ctx,
    flags: &Flags,
    config: &Config,
    skip: &[String],
    words: &mut Words,
) -> Result<(), String> {
    words.out(format!("[init] Using Kubernetes version: {}", config.version));
    if !skip.iter().any(|s| s == "preflight") {
        words.out("[preflight] Running pre-flight checks");
        let ignore = [config.ignore.clone(), flags.list("ignore-preflight-errors")].concat();
        preflight::check(&ctx.machine(), config, Purpose::Init, &ignore, ctx.root(), words)?;
    }
    ctx.changes();
    announce_images(words);
    pull(ctx, config).await;
    let name = config.node_name.clone();
    let address = config.advertise.map(|a| a.to_string()).unwrap_or_default();
    let server = endpoint(config);
    {
        let mut machine = ctx.machine();
        words.out(format!("[certs] Using certificateDir folder \"{}\"", pki::DIR));
        certificates(&mut machine, config, &name, &address, words)?;
        kubeconfigs(&mut machine, config, &name, &address, words)?;
        words.out("[etcd] Creating static Pod manifest for local etcd in \"/etc/kubernetes/manifests\"");
        manifests::etcd(&mut machine, config, &name, &address, &[(name.clone(), address.clone())]);
        announce_manifests(words);
        manifests::control_plane(&mut machine, config, &address);
        let id = cluster::cluster_id(&machine).ok_or("the CA certificate cannot be read")?;
        if etcd::stored(&machine).is_none() {
            let member = ctx.hosts.etcd().begin(&id, &name, &address);
            etcd::store(&mut machine, &id, &member);
        }
        words.out("[kubelet-start] Writing kubelet environment file with flags to file \"/var/lib/kubelet/kubeadm-flags.env\"");
        words.out(
            "[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/instance-config.yaml\"",
        );
        words.out("[patches] Applied patch of type \"application/strategic-merge-patch+json\" to target \"kubeletconfiguration\"");
        words.out("[kubelet-start] Writing kubelet configuration to file \"/var/lib/kubelet/config.yaml\"");
        manifests::kubelet(&mut machine, config, &name);
        words.out("[kubelet-start] Starting the kubelet");
        kubelet::start(&mut machine)?;
    }
    ctx.hosts.settle();
    let clock = ctx.hosts.world().clock;
    words.out("[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory \"/etc/kubernetes/manifests\"");
    if kubelet_state(ctx) != State::Active || !ctx.hosts.serves(ctx.host.vmid) {
        clock.wait(Duration::from_secs(60)).await;
        return Err("error execution phase wait-control-plane: cannot obtain client without bootstrap: could not bootstrap the admin user in file \
                    admin.conf: unable to create ClusterRoleBinding: client rate limiter Wait returned an error: rate: Wait(n=1) would exceed \
                    context deadline"
            .into());
    }
    clock.wait(Duration::from_secs(7)).await;
    words.out("[kubelet-check] Waiting for a healthy kubelet at http://127.0.0.1:10248/healthz. This can take up to 4m0s");
    words.out("[kubelet-check] The kubelet is healthy after 1.076075ms");
    healthy(words, &address, config.port, "8m0s");
    finish(ctx, flags, config, &server, words)
}

fn kubelet_state(ctx: &Ctx) -> State {
    ctx.machine().services.get("kubelet").state
}

/// The words of the check of a control plane.
pub fn healthy(words: &mut Words, address: &str, port: u16, limit: &str) {
    words.out(format!(
        "[control-plane-check] Waiting for healthy control plane components. This can take up to {limit}"
    ));
    words.out(format!("[control-plane-check] Checking kube-apiserver at https://{address}:{port}/livez"));
    words.out("[control-plane-check] Checking kube-controller-manager at https://127.0.0.1:10257/healthz");
    words.out("[control-plane-check] Checking kube-scheduler at https://127.0.0.1:10259/livez");
    words.out("[control-plane-check] kube-scheduler is healthy after 2.951164ms");
    words.out("[control-plane-check] kube-controller-manager is healthy after 4.172537ms");
    words.out("[control-plane-check] kube-apiserver is healthy after 1.501629729s");
}

/// Pulls what is not there yet.
pub async fn pull(ctx: &mut Ctx, config: &Config) {
    for image in images::of(&config.version, &config.registry) {
        images::fetch(ctx, &image).await;
    }
}

/// The words about the static pods.
pub fn announce_manifests(words: &mut Words) {
    words.out("[control-plane] Using manifest folder \"/etc/kubernetes/manifests\"");
    for pod in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        words.out(format!("[control-plane] Creating static Pod manifest for \"{pod}\""));
    }
}

/// The URL that clients use: the endpoint, or the advertised address.
pub fn endpoint(config: &Config) -> String {
    match config.endpoint.as_str() {
        "" => {
            format!("https://{}:{}", config.advertise.map(|a| a.to_string()).unwrap_or_default(), config.port)
        }
        endpoint if endpoint.contains(':') => format!("https://{endpoint}"),
        endpoint => format!("https://{endpoint}:{}", config.port),
    }
}

/// The words about the labels and the taint of a control plane.
pub fn mark(words: &mut Words, name: &str) {
    words.out(format!(
        "[mark-control-plane] Marking the node {name} as control-plane by adding the labels: [node-role.kubernetes.io/control-plane \
         node.kubernetes.io/exclude-from-external-load-balancers]"
    ));
    words.out(format!(
        "[mark-control-plane] Marking the node {name} as control-plane by adding the taints [node-role.kubernetes.io/control-plane:NoSchedule]"
    ));
}

fn finish(
    ctx: &mut Ctx,
    flags: &Flags,
    config: &Config,
    server: &str,
    words: &mut Words,
) -> Result<(), String> {
    let hosts = ctx.hosts.clone();
    let (id, ca) = {
        let machine = ctx.machine();
        (cluster::cluster_id(&machine).unwrap_or_default(), machine.fs.text(&format!("{}/ca.crt", pki::DIR)))
    };
    words.out("[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace");
    objects::configuration(&hosts, &id, config);
    words.out("[kubelet] Creating a ConfigMap \"kubelet-config\" in namespace kube-system with the configuration for the kubelets in the cluster");
    let key = config
        .certificate_key
        .clone()
        .or(flags.get("certificate-key").map(String::from))
        .unwrap_or_else(tokens::random_key);
    let upload = flags.on("upload-certs");
    if upload {
        tokens::store_certificates(ctx, &id, &key, words);
    } else {
        words.out("[upload-certs] Skipping phase. Please see --upload-certs");
    }
    mark(words, &config.node_name);
    let token = config.token.clone().unwrap_or_else(tokens::random);
    words.out(format!("[bootstrap-token] Using token: {token}"));
    words.out("[bootstrap-token] Configuring bootstrap tokens, cluster-info ConfigMap, RBAC Roles");
    bootstrap_rules(words);
    words.out("[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace");
    objects::cluster_info(&hosts, &id, &ca, server);
    let ttl = config.token_seconds.map_or(24 * 3600, |s| s as i64);
    objects::put_token(&hosts, &id, &tokens::new(&token, Some(ttl), &config.token_description));
    objects::sign_cluster_info(&hosts, &id);
    words.out("[kubelet-finalize] Updating \"/etc/kubernetes/kubelet.conf\" to point to a rotatable kubelet client certificate and key");
    objects::proxy(&hosts, &id, config);
    words.out("[addons] Applied essential addon: CoreDNS\n[addons] Applied essential addon: kube-proxy");
    farewell(words, config, server, &token, &id, upload.then_some(key.as_str()));
    Ok(())
}

/// The words about the rules for bootstrap tokens.
pub fn bootstrap_rules(words: &mut Words) {
    for rule in [
        "to allow Node Bootstrap tokens to get nodes",
        "to allow Node Bootstrap tokens to post CSRs in order for nodes to get long term certificate credentials",
        "to allow the csrapprover controller automatically approve CSRs from a Node Bootstrap Token",
        "to allow certificate rotation for all node client certificates in the cluster",
        "to allow the API server kubelet client certificate to access the kubelet API",
    ] {
        words.out(format!("[bootstrap-token] Configured RBAC rules {rule}"));
    }
}

fn farewell(words: &mut Words, config: &Config, server: &str, token: &str, hash: &str, key: Option<&str>) {
    let join = format!(
        "kubeadm join {} --token {token} \\\n\t--discovery-token-ca-cert-hash sha256:{hash} ",
        server.trim_start_matches("https://")
    );
    words.out(
        "\nYour Kubernetes control-plane has initialized successfully!\n\nTo start using your cluster, you need to run the following as a regular \
         user:\n\n  mkdir -p $HOME/.kube\n  sudo cp -i /etc/kubernetes/admin.conf $HOME/.kube/config\n  sudo chown $(id -u):$(id -g) \
         $HOME/.kube/config\n\nAlternatively, if you are the root user, you can run:\n\n  export KUBECONFIG=/etc/kubernetes/admin.conf\n\nYou \
         should now deploy a pod network to the cluster.\nRun \"kubectl apply -f [podnetwork].yaml\" with one of the options listed at:\n  \
         https://kubernetes.io/docs/concepts/cluster-administration/addons/\n",
    );
    if let Some(key) = key {
        words.out(format!(
            "You can now join any number of control-plane nodes running the following command on each as root:\n\n  {join}\\\n\t--control-plane \
             --certificate-key {key}\n\nPlease note that the certificate-key gives access to cluster sensitive data, keep it secret!\nAs a \
             safeguard, uploaded-certs will be deleted in two hours; If necessary, you can use\n\"kubeadm init phase upload-certs --upload-certs\" \
             to reload certs afterward.\n"
        ));
    } else if !config.endpoint.is_empty() {
        words.out(format!(
            "You can now join any number of control-plane nodes by copying certificate authorities\nand service account keys on each node and then \
             running the following as root:\n\n  {join}\\\n\t--control-plane \n"
        ));
    }
    words.out(format!(
        "Then you can join any number of worker nodes by running the following on each as root:\n\n{join}"
    ));
}
