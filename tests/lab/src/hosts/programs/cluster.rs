//! Programs of Kubernetes: kubeadm, kubelet, crictl and etcdctl.

use serde_json::{Value, json};

use super::{Ctx, Entry, Output, Run, etcdctl};
use crate::hosts::{etcd, kubeadm};

/// The programs.
pub const TABLE: &[Entry] = &[
    ("containerd", "containerd", Run::Quick(containerd)),
    ("crictl", "cri-tools", Run::Quick(crictl)),
    ("etcdctl", "etcd-client", Run::Quick(etcdctl::etcdctl)),
    ("kubeadm", "kubeadm", Run::Slow(kubeadm::kubeadm)),
    ("kubectl", "kubectl", Run::Quick(kubectl)),
    ("kubelet", "kubelet", Run::Quick(kubelet)),
];

fn containerd(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [v] if v == "--version" || v == "-v" => {
            let version = ctx.machine().packages.version("containerd").unwrap_or_default().to_string();
            let number = version.split(['~', '-']).next().unwrap_or_default();
            Output::ok(format!("containerd github.com/containerd/containerd {number} {version}\n"))
        }
        [flag, path, config, dump] if flag == "--config" && config == "config" && dump == "dump" => {
            let machine = ctx.machine();
            let Ok(content) = machine.fs.read(path) else {
                return Output::fail(1, format!("containerd: open {path}: no such file or directory"));
            };
            let text = String::from_utf8_lossy(content).into_owned();
            match kubeadm::runtime::check(&text, path) {
                Ok(()) => Output::ok(text),
                Err(line) => Output::fail(1, line),
            }
        }
        _ => ctx.unknown("containerd", args),
    }
}

/// `kubectl --server=https://ADDRESS:PORT get --raw PATH`, for the paths that show whether an API server serves.
fn kubectl(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut server = String::new();
    let mut words = Vec::new();
    for arg in args {
        match arg.split_once('=') {
            Some(("--kubeconfig", path)) if !ctx.machine().fs.exists(path) => {
                return Output::fail(1, format!("error: stat {path}: no such file or directory"));
            }
            Some(("--kubeconfig" | "--request-timeout", _)) => {}
            Some(("--server", url)) => server = url.trim_start_matches("https://").into(),
            _ => words.push(arg.as_str()),
        }
    }
    let ["get", "--raw", path] = words.as_slice() else { return ctx.unknown("kubectl", args) };
    let refused = || {
        let hint = "did you specify the right host or port?";
        Output::fail(1, format!("The connection to the server {server} was refused - {hint}"))
    };
    let Some((address, _)) = server.rsplit_once(':') else { return ctx.unknown("kubectl", args) };
    let host = address.parse().ok().and_then(|a| ctx.hosts.by_address(a));
    let Some(host) = host.filter(|h| ctx.hosts.serves(h.vmid)) else { return refused() };
    let id = kubeadm::cluster::cluster_id(&host.machine());
    let Some(id) = id else { return refused() };
    if *path == "/readyz" {
        return Output::ok("ok");
    }
    let Some(name) = path.strip_prefix("/api/v1/namespaces/").filter(|n| !n.contains('/')) else {
        return ctx.unknown("kubectl", args);
    };
    if !etcd::quorate(&ctx.hosts, &id) {
        let text = "the server was unable to return a response in the time allotted";
        return Output::fail(1, format!("Error from server (Timeout): {text}"));
    }
    match ctx.hosts.kube().get(&id, "v1", "Namespace", None, name) {
        Some(object) => Output::ok(object.to_string()),
        None => Output::fail(1, format!("Error from server (NotFound): namespaces \"{name}\" not found")),
    }
}

fn kubelet(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [v] if v == "--version" => {
            let version = ctx
                .machine()
                .packages
                .version("kubelet")
                .and_then(|v| v.split('-').next())
                .unwrap_or_default()
                .to_string();
            Output::ok(format!("Kubernetes v{version}\n"))
        }
        _ => ctx.unknown("kubelet", args),
    }
}

/// The static pods' containers that run, by name, with ids that change when one is stopped and started again.
fn containers(ctx: &Ctx) -> Vec<(String, String)> {
    let machine = ctx.machine();
    if !machine.services.active("containerd") || !machine.services.active("kubelet") {
        return Vec::new();
    }
    let names = machine.fs.list("/etc/kubernetes/manifests").unwrap_or_default();
    let pods = names.iter().filter_map(|n| n.strip_suffix(".yaml"));
    let runs = pods.filter(|p| *p != "etcd" || etcd::runs(&machine).is_some());
    runs.map(|p| {
        let stops = machine.kube.stops.get(p).copied().unwrap_or(0);
        let number = (u64::from(ctx.host.vmid) << 24) + (stops << 8) + p.len() as u64;
        (p.to_string(), format!("{number:064x}"))
    })
    .collect()
}

fn crictl(ctx: &mut Ctx, args: &[String]) -> Output {
    let words: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--runtime-endpoint" && !a.starts_with("unix://"))
        .collect();
    if !ctx.root() {
        return Output::fail(1, "validate service connection: permission denied");
    }
    if !ctx.machine().services.active("containerd") {
        return Output::fail(
            1,
            "FATA[0000] validate service connection: validate CRI v1 runtime API for endpoint \"unix:///run/containerd/containerd.sock\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial unix /run/containerd/containerd.sock: connect: no such file or directory\"",
        );
    }
    match words.as_slice() {
        ["ps", rest @ ..] => {
            let known = |w: &&str| {
                ["-o", "json", "-q", "--name", "--state", "running", "Running", "-a"].contains(w)
                    || !w.starts_with('-')
            };
            if !rest.iter().all(known) {
                return ctx.unknown("crictl", args);
            }
            let name = rest
                .iter()
                .position(|w| *w == "--name")
                .and_then(|at| rest.get(at + 1))
                .map(|n| n.trim_matches(['^', '$']));
            let found: Vec<_> =
                containers(ctx).into_iter().filter(|(n, _)| name.is_none_or(|w| n == w)).collect();
            if rest.contains(&"-q") {
                return Output::ok(found.iter().map(|(_, id)| format!("{id}\n")).collect::<String>());
            }
            let all: Vec<Value> = found
                .iter()
                .map(|(name, id)| json!({"id": id, "metadata": {"name": name, "attempt": 0}, "state": "CONTAINER_RUNNING", "labels": {"io.kubernetes.container.name": name}}))
                .collect();
            Output::ok(format!(
                "{}\n",
                serde_json::to_string_pretty(&json!({ "containers": all })).unwrap_or_default()
            ))
        }
        ["exec", id, program @ ("etcdctl" | "etcdutl"), ..] => {
            let Some((name, _)) = containers(ctx).into_iter().find(|(_, known)| known.starts_with(id)) else {
                return Output::fail(
                    1,
                    format!(
                        "E0000 rpc error: code = NotFound desc = an error occurred when try to find container \"{id}\": not found"
                    ),
                );
            };
            if name != "etcd" {
                return Output::fail(
                    1,
                    format!(
                        "FATA[0000] execing command in container: exec: \"{program}\": executable file not found in $PATH"
                    ),
                );
            }
            let at = args.iter().position(|a| a == program).unwrap_or(0);
            let mut ran = match *program {
                "etcdctl" => etcdctl::etcdctl(ctx, &args[at + 1..]),
                _ => etcdctl::etcdutl(ctx, &args[at + 1..]),
            };
            // crictl ends with 1, whatever the program ended with (cmd/crictl/exec.go of cri-tools).
            if ran.exit != 0 && ran.exit != 127 {
                let code = std::mem::replace(&mut ran.exit, 1);
                let told =
                    format!("execing command in container {id}: command terminated with exit code {code}");
                ran.stderr.extend_from_slice(format!("FATA[0000] {told}\n").as_bytes());
            }
            ran
        }
        ["stop", "--timeout", _, id] => {
            let Some((name, _)) = containers(ctx).into_iter().find(|(_, known)| known.starts_with(id)) else {
                let text = format!(
                    "rpc error: code = NotFound desc = an error occurred when try to find container \"{id}\": not found"
                );
                return Output::fail(1, text);
            };
            ctx.changes();
            // The kubelet starts it again at once: a container that ran long has no back-off.
            *ctx.machine().kube.stops.entry(name).or_default() += 1;
            Output::ok(format!("{id}\n"))
        }
        ["info"] => Output::ok(format!(
            "{}\n",
            json!({"status": {"conditions": [{"type": "RuntimeReady", "status": true}]}})
        )),
        ["images", "-o", "json"] => {
            let images: Vec<Value> =
                ctx.machine().kube.images.iter().map(|i| json!({"repoTags": [i]})).collect();
            Output::ok(format!("{}\n", json!({ "images": images })))
        }
        _ => ctx.unknown("crictl", args),
    }
}

/// Runs a program in etcd's container, as the tools' scripts do.
pub fn in_etcd(ctx: &mut Ctx, words: &[&str]) -> Output {
    let Some((_, id)) = containers(ctx).into_iter().find(|(name, _)| name == "etcd") else {
        return Output::fail(1, "no container of etcd runs");
    };
    let pki = "/etc/kubernetes/pki/etcd";
    let mut args: Vec<String> =
        ["exec", &id, words.first().copied().unwrap_or_default()].map(String::from).into();
    if words.first() == Some(&"etcdctl") {
        args.push("--endpoints=https://127.0.0.1:2379".into());
        args.push(format!("--cacert={pki}/ca.crt"));
        args.push(format!("--cert={pki}/healthcheck-client.crt"));
        args.push(format!("--key={pki}/healthcheck-client.key"));
    }
    args.extend(words.iter().skip(1).map(|w| (*w).to_string()));
    crictl(ctx, &args)
}
