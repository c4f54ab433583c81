//! Static pods and the kubelet's files.

use std::collections::BTreeMap;

use serde_json::json;

use super::config::Config;
use super::images;
use crate::hosts::Machine;

const DIR: &str = "/etc/kubernetes/manifests";

fn pod(name: &str, image: &str, command: &[String]) -> String {
    let lines: String = command.iter().map(|c| format!("    - {c}\n")).collect();
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    component: {name}\n    tier: control-plane\n  name: {name}\n  namespace: kube-system\n\
         spec:\n  containers:\n  - command:\n{lines}    image: {image}\n    imagePullPolicy: IfNotPresent\n    name: {name}\n  hostNetwork: true\n\
         \x20 priority: 2000001000\n  priorityClassName: system-node-critical\n"
    )
}

/// A command with the configuration's own arguments, each in place of a default of the same name.
fn with_extra(mut command: Vec<String>, config: &Config, component: &str) -> Vec<String> {
    for (name, value) in config.extra.get(component).into_iter().flatten() {
        let flag = format!("--{name}=");
        command.retain(|c| !c.starts_with(&flag));
        command.push(format!("{flag}{value}"));
    }
    if let Some(flags) = command.get_mut(1..) {
        flags.sort();
    }
    command
}

fn image(config: &Config, name: &str) -> String {
    let all = images::of(&config.version, &config.registry);
    let found = all.into_iter().find(|i| i.contains(&format!("/{name}:"))).unwrap_or_default();
    match (&config.etcd_tag, found.rsplit_once(':')) {
        (Some(tag), Some((bare, _))) if name == "etcd" => format!("{bare}:{tag}"),
        _ => found,
    }
}

/// Writes the static pods of the control plane but etcd's.
pub fn control_plane(machine: &mut Machine, config: &Config, address: &str) {
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        one(machine, config, address, name);
    }
}

/// Writes one static pod of the control plane but etcd's.
pub fn one(machine: &mut Machine, config: &Config, address: &str, which: &str) {
    let port = config.port;
    let api = [
        "kube-apiserver".to_string(),
        format!("--advertise-address={address}"),
        "--authorization-mode=Node,RBAC".into(),
        "--client-ca-file=/etc/kubernetes/pki/ca.crt".into(),
        "--etcd-servers=https://127.0.0.1:2379".into(),
        format!("--secure-port={port}"),
        format!("--service-cluster-ip-range={}", config.service_subnet),
        "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt".into(),
        "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key".into(),
    ];
    let manager = [
        "kube-controller-manager".to_string(),
        "--bind-address=127.0.0.1".into(),
        "--allocate-node-cidrs=true".into(),
        format!("--cluster-cidr={}", config.pod_subnet),
        format!("--cluster-name={}", config.cluster),
        "--kubeconfig=/etc/kubernetes/controller-manager.conf".into(),
        format!("--service-cluster-ip-range={}", config.service_subnet),
    ];
    let scheduler = [
        "kube-scheduler".to_string(),
        "--bind-address=127.0.0.1".into(),
        "--kubeconfig=/etc/kubernetes/scheduler.conf".into(),
        "--leader-elect=true".into(),
    ];
    for (name, command) in [
        ("kube-apiserver", &api[..]),
        ("kube-controller-manager", &manager[..]),
        ("kube-scheduler", &scheduler[..]),
    ]
    .into_iter()
    .filter(|(name, _)| *name == which)
    {
        let command = with_extra(command.to_vec(), config, name);
        let text = pod(name, &image(config, name), &command);
        machine.fs.put(&format!("{DIR}/{name}.yaml"), text, 0o600, "root", "root");
    }
}

/// Writes etcd's static pod.
pub fn etcd(machine: &mut Machine, config: &Config, name: &str, address: &str, cluster: &[(String, String)]) {
    let initial: Vec<String> = cluster.iter().map(|(n, a)| format!("{n}=https://{a}:2380")).collect();
    let mut command = vec![
        "etcd".to_string(),
        format!("--advertise-client-urls=https://{address}:2379"),
        "--data-dir=/var/lib/etcd".into(),
        format!("--initial-advertise-peer-urls=https://{address}:2380"),
        format!("--initial-cluster={}", initial.join(",")),
        "--listen-metrics-urls=http://127.0.0.1:2381".into(),
        format!("--listen-client-urls=https://127.0.0.1:2379,https://{address}:2379"),
        format!("--listen-peer-urls=https://{address}:2380"),
        format!("--name={name}"),
    ];
    // Only a join says so; without it etcd takes the state for new.
    if cluster.len() > 1 {
        command.push("--initial-cluster-state=existing".into());
    }
    let text = pod("etcd", &image(config, "etcd"), &with_extra(command, config, "etcd"));
    machine.fs.put(&format!("{DIR}/etcd.yaml"), text, 0o600, "root", "root");
}

/// Writes the kubelet's configuration and flags.
pub fn kubelet(machine: &mut Machine, config: &Config, name: &str) {
    let overridden =
        if name == super::host_name(machine) { String::new() } else { format!("--hostname-override={name}") };
    machine.fs.put(
        "/var/lib/kubelet/kubeadm-flags.env",
        format!("KUBELET_KUBEADM_ARGS=\"{overridden}\"\n"),
        0o644,
        "root",
        "root",
    );
    let dns = super::config::cidr(&config.service_subnet).map(|(a, _)| {
        let octets = a.octets();
        format!("{}.{}.{}.10", octets[0], octets[1], octets[2])
    });
    let text = super::kubelet::configuration(
        config,
        &[
            (
                "authentication",
                json!({"anonymous": {"enabled": false}, "webhook": {"enabled": true},
                "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}}),
            ),
            ("authorization", json!({"mode": "Webhook"})),
            ("clusterDNS", json!([dns.unwrap_or_default()])),
            ("clusterDomain", json!(config.domain)),
            ("containerRuntimeEndpoint", json!(config.cri_socket)),
            ("healthzBindAddress", json!("127.0.0.1")),
            ("healthzPort", json!(10248)),
        ],
    );
    machine.fs.put("/var/lib/kubelet/config.yaml", text.clone(), 0o644, "root", "root");
    let instance = format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\ncontainerRuntimeEndpoint: {}\nkind: KubeletConfiguration\n",
        config.cri_socket
    );
    machine.fs.put("/var/lib/kubelet/instance-config.yaml", instance, 0o644, "root", "root");
}

fn flag(machine: &Machine, file: &str, name: &str) -> Option<String> {
    let text = machine.fs.text(file);
    let at = text.find(name)? + name.len();
    Some(text[at..].split(['\n', '"', ' ']).next().unwrap_or_default().to_string())
}

/// The port of the API server on this machine.
pub fn api_port(machine: &Machine) -> u16 {
    flag(machine, &format!("{DIR}/kube-apiserver.yaml"), "--secure-port=")
        .and_then(|p| p.parse().ok())
        .unwrap_or(6443)
}

/// The version of the API server on this machine, such as `v1.36.2`.
pub fn api_version(machine: &Machine) -> String {
    flag(machine, &format!("{DIR}/kube-apiserver.yaml"), "kube-apiserver:").unwrap_or_default()
}

/// The tags of the images of the static pods on this machine, by component.
pub fn static_pods(machine: &Machine) -> BTreeMap<String, String> {
    let names = machine.fs.list(DIR).unwrap_or_default();
    let pods = names.iter().filter_map(|n| n.strip_suffix(".yaml"));
    pods.filter_map(|pod| {
        let image = flag(machine, &format!("{DIR}/{pod}.yaml"), "image: ")?;
        Some((pod.to_string(), image))
    })
    .collect()
}

/// The node's name when it is not the host's.
pub fn node_name(machine: &Machine) -> Option<String> {
    flag(machine, "/var/lib/kubelet/kubeadm-flags.env", "--hostname-override=")
}
