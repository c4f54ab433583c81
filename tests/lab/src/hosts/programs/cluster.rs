//! Programs of Kubernetes: kubeadm, kubelet, crictl and etcdctl.

use serde_json::{Value, json};

use super::{Ctx, Entry, Output, Run};
use crate::hosts::{etcd, kubeadm};

/// The programs.
pub const TABLE: &[Entry] = &[
    ("containerd", "containerd", Run::Quick(containerd)),
    ("crictl", "cri-tools", Run::Quick(crictl)),
    ("etcdctl", "etcd-client", Run::Quick(etcdctl)),
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

/// The static pods' containers that run, by name, with ids that a restart changes not.
fn containers(ctx: &Ctx) -> Vec<(String, String)> {
    let machine = ctx.machine();
    if !machine.services.active("containerd") || !machine.services.active("kubelet") {
        return Vec::new();
    }
    let names = machine.fs.list("/etc/kubernetes/manifests").unwrap_or_default();
    let pods = names.iter().filter_map(|n| n.strip_suffix(".yaml"));
    let runs = pods.filter(|p| *p != "etcd" || etcd::runs(&machine).is_some());
    runs.map(|p| (p.to_string(), format!("{:064x}", (u64::from(ctx.host.vmid) << 8) + p.len() as u64)))
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
        ["exec", id, "etcdctl", ..] => {
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
                    "FATA[0000] execing command in container: exec: \"etcdctl\": executable file not found in $PATH",
                );
            }
            let at = args.iter().position(|a| a == "etcdctl").unwrap_or(0);
            etcdctl(ctx, &args[at + 1..])
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

const DEADLINE: &str = "Error: context deadline exceeded";

fn etcdctl(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Vec::new();
    let (mut endpoints, mut format, mut all) =
        (vec!["https://127.0.0.1:2379".to_string()], "simple".to_string(), false);
    let mut rest = args.iter();
    let mut files = Vec::new();
    while let Some(arg) = rest.next() {
        let (name, value) =
            arg.split_once('=').map_or((arg.as_str(), None), |(n, v)| (n, Some(v.to_string())));
        match name {
            "--endpoints" | "--cacert" | "--cert" | "--key" | "-w" | "--write-out" | "--command-timeout"
            | "--dial-timeout" => {
                let value = value.or_else(|| rest.next().cloned()).unwrap_or_default();
                match name {
                    "--endpoints" => endpoints = value.split(',').map(String::from).collect(),
                    "-w" | "--write-out" => format = value,
                    "--cacert" | "--cert" | "--key" => files.push(value),
                    _ => {}
                }
            }
            "--cluster" => all = true,
            option if option.starts_with('-') => return ctx.unknown("etcdctl", args),
            word => words.push(word),
        }
    }
    if words == ["version"] {
        return Output::ok("etcdctl version: 3.6.8\nAPI version: 3.6\n");
    }
    let here = {
        let machine = ctx.machine();
        if let Some(missing) = files.iter().find(|f| !machine.fs.exists(f)) {
            return Output::fail(1, format!("Error: open {missing}: no such file or directory"));
        }
        // etcd asks for a client certificate of its own CA.
        if files.len() < 3 {
            return Output::fail(1, DEADLINE);
        }
        etcd::stored(&machine)
    };
    let Some((cluster_id, own)) = here else { return Output::fail(1, DEADLINE) };
    let running = etcd::running(&ctx.hosts, &cluster_id);
    let Some(cluster) = ctx.hosts.etcd().get(&cluster_id).cloned() else { return Output::fail(1, DEADLINE) };
    let quorate = cluster.quorate(&running);
    let member_at = |endpoint: &str| {
        let host = endpoint.trim_start_matches("https://").split(':').next().unwrap_or_default();
        let member = if ["127.0.0.1", "localhost"].contains(&host) {
            cluster.members.iter().find(|m| m.id == own)
        } else {
            cluster.members.iter().find(|m| m.address == host)
        };
        member.filter(|m| running.contains(&m.id))
    };
    if all && quorate {
        endpoints = cluster
            .members
            .iter()
            .filter(|m| !m.learner)
            .map(|m| format!("https://{}:2379", m.address))
            .collect();
    }
    let asked = endpoints.iter().find_map(|e| member_at(e)).map(|m| m.id);
    let header = json!({"cluster_id": cluster.id, "member_id": asked.unwrap_or(own), "raft_term": 2});
    let as_json = format == "json";
    match words.as_slice() {
        ["member", "list"] => {
            if asked.is_none() || !quorate {
                return Output::fail(1, DEADLINE);
            }
            if !as_json {
                let line = |m: &etcd::Member| {
                    let state = "started";
                    format!(
                        "{:x}, {state}, {}, https://{2}:2380, https://{2}:2379, {3}\n",
                        m.id, m.name, m.address, m.learner
                    )
                };
                return Output::ok(cluster.members.iter().map(line).collect::<String>());
            }
            let members: Vec<Value> = cluster
                .members
                .iter()
                .map(|m| {
                    let mut shown = json!({"ID": m.id, "name": m.name, "peerURLs": [format!("https://{}:2380", m.address)],
                        "clientURLs": [format!("https://{}:2379", m.address)]});
                    if m.learner {
                        shown["isLearner"] = json!(true);
                    }
                    shown
                })
                .collect();
            Output::ok(format!("{}\n", json!({"header": header, "members": members})))
        }
        ["endpoint", "health"] => {
            let healthy = |e: &String| quorate && member_at(e).is_some();
            let down = endpoints.iter().any(|e| !healthy(e));
            let text = if as_json {
                let shown: Vec<Value> = endpoints
                    .iter()
                    .map(|e| match healthy(e) {
                        true => json!({"endpoint": e, "health": true, "took": "6.079244ms"}),
                        false => json!({"endpoint": e, "health": false, "took": "5.001891112s", "error": "context deadline exceeded"}),
                    })
                    .collect();
                format!("{}\n", Value::Array(shown))
            } else {
                endpoints
                    .iter()
                    .filter(|e| healthy(e))
                    .map(|e| format!("{e} is healthy: successfully committed proposal: took = 6.073635ms\n"))
                    .collect()
            };
            let out = Output { exit: i32::from(down), stdout: text.into(), stderr: Vec::new() };
            if down { out.with_stderr("Error: unhealthy cluster\n") } else { out }
        }
        ["endpoint", "status"] if as_json => {
            let leader =
                cluster.members.iter().find(|m| !m.learner && running.contains(&m.id)).map_or(0, |m| m.id);
            let mut shown = Vec::new();
            let mut errors = String::new();
            for endpoint in &endpoints {
                match member_at(endpoint) {
                    Some(m) => shown.push(json!({"Endpoint": endpoint, "Status": {
                        "header": {"cluster_id": cluster.id, "member_id": m.id, "revision": cluster.revision, "raft_term": 2},
                        "version": "3.6.8", "dbSize": 1_634_304, "leader": leader, "raftIndex": 1030, "raftTerm": 2, "raftAppliedIndex": 1030,
                        "dbSizeInUse": 1_634_304}})),
                    None => errors.push_str(&format!("Failed to get the status of endpoint {endpoint} (context deadline exceeded)\n")),
                }
            }
            Output {
                exit: i32::from(!errors.is_empty()),
                stdout: format!("{}\n", Value::Array(shown)).into(),
                stderr: errors.into(),
            }
        }
        ["member", "remove", id] => {
            if asked.is_none() || !quorate {
                return Output::fail(1, DEADLINE);
            }
            let Ok(number) = u64::from_str_radix(id, 16) else {
                return Output::fail(
                    128,
                    format!(
                        "Error: bad member ID arg (strconv.ParseUint: parsing \"{id}\": invalid syntax), expecting ID in Hex"
                    ),
                );
            };
            let removed = ctx.hosts.etcd().get_mut(&cluster_id).is_some_and(|c| c.remove(number));
            if !removed {
                return Output::fail(1, "Error: etcdserver: member not found");
            }
            ctx.changes();
            Output::ok(format!("Member {number:>16x} removed from cluster {:x}\n", cluster.id))
        }
        ["alarm", "list"] => Output::quiet(),
        ["snapshot", "save", path] => {
            if asked.is_none() || !quorate {
                return Output::fail(1, DEADLINE);
            }
            ctx.changes();
            let content =
                format!("lab etcd snapshot of cluster {:x} revision {}\n", cluster.id, cluster.revision);
            ctx.machine().fs.put(path, content, 0o600, "root", "root");
            Output::ok(format!("Snapshot saved at {path}\n"))
        }
        _ => ctx.unknown("etcdctl", args),
    }
}
