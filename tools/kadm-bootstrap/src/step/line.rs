//! Each step as one imperative line.

use std::fmt;

use super::Step;
use crate::exchange::Origin;

fn list<'a>(words: impl IntoIterator<Item = &'a String>) -> String {
    words.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Kernel { host, files, modules, settings, swap_off } => {
                let mut what = Vec::new();
                if !files.is_empty() {
                    what.push(format!("write {}", list(files.keys())));
                }
                if !modules.is_empty() {
                    what.push(format!("load {}", list(modules)));
                }
                if *settings {
                    what.push("apply sysctls".to_owned());
                }
                if *swap_off {
                    what.push("switch swap off".to_owned());
                }
                write!(f, "prepare the kernel on {host}: {}", what.join("; "))
            }
            Step::Packages { host, install, hold, .. } if install.is_empty() => {
                write!(f, "hold {} on {host}", list(hold))
            }
            Step::Packages { host, install, .. } => write!(f, "install {} on {host}", list(install)),
            Step::Pin { host, pins, units } => {
                let what: Vec<&String> = pins.iter().map(|p| &p.url).chain(units.keys()).collect();
                write!(f, "install {} on {host}", list(what))
            }
            Step::Runtime { host, sha256: Some(_) } => write!(f, "configure containerd on {host}"),
            Step::Runtime { host, sha256: None } => write!(f, "start containerd on {host}"),
            Step::Images { host, version, .. } => {
                write!(f, "pull the images of a control plane of {version} on {host}")
            }
            Step::Sweep { host, files } => write!(f, "remove {} on {host}", list(files)),
            Step::Reset { host } => write!(f, "reset {host}"),
            Step::Init { host, endpoint, version, .. } => {
                write!(f, "initialise Kubernetes {version} on {host} behind {endpoint}")
            }
            Step::Existing { host, .. } => {
                write!(f, "keep etcd on {host} from ever beginning another cluster")
            }
            Step::Join { host, control_plane: true, .. } => write!(f, "join {host} as a control plane"),
            Step::Join { host, .. } => write!(f, "join {host} as a worker"),
            Step::Drain { node, .. } => write!(f, "drain {node}"),
            Step::Uncordon { node, .. } => write!(f, "uncordon {node}"),
            Step::Snapshot { host, path } => write!(f, "save etcd on {host} to {path}"),
            Step::ControlPlane { host, version, .. } => {
                write!(f, "upgrade the control plane on {host} to {version}")
            }
            Step::Kubelet { host, version, .. } => write!(f, "upgrade the kubelet on {host} to {version}"),
            Step::Programs { host, what, .. } => {
                let from = match what.to {
                    Origin::Files => "their publishers' files",
                    Origin::Packages => "packages",
                };
                write!(f, "change the programs of Kubernetes on {host} to {from}")
            }
            Step::KubeletConfig { fields, drop, .. } => {
                write!(f, "change the configuration of all kubelets: ")?;
                let set: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let dropped = drop.iter().map(|name| format!("drop {name}"));
                write!(f, "{}", set.into_iter().chain(dropped).collect::<Vec<_>>().join(", "))
            }
            Step::KubeletNote { fields, .. } if fields.is_empty() => {
                write!(f, "note that the document sets no field of the kubelets' configuration")
            }
            Step::KubeletNote { fields, .. } => {
                write!(f, "note that the document sets {} of the kubelets' configuration", list(fields))
            }
            Step::Configure { host, .. } => {
                write!(f, "write the kubelet's configuration on {host} and restart it")
            }
            Step::Proxy { mode, .. } => write!(f, "set kube-proxy to {mode} and start its pods anew"),
            Step::Timer { host, remove, .. } if remove.is_empty() => {
                write!(f, "install the timer that saves etcd on {host}")
            }
            Step::Timer { host, .. } => write!(f, "remove the timer that saves etcd from {host}"),
            Step::Renew { host } => {
                write!(f, "renew the certificates on {host} and restart its control plane")
            }
            Step::Aside { host } => write!(f, "put etcd's data on {host} aside"),
            Step::Restore { host, endpoint, backup, .. } => {
                write!(f, "restore the cluster on {host} behind {endpoint} from {backup}")
            }
            Step::Start { host, unit } => write!(f, "start {unit} on {host}"),
            Step::RemoveMember { id, name, .. } => write!(f, "remove the etcd member {name} ({id:x})"),
            Step::DeleteNode { node, .. } => write!(f, "delete the node {node}"),
            Step::Kubeconfig { path, via, .. } => write!(f, "write the kubeconfig {path} from {via}"),
            Step::Merge { path, context, switch, .. } => {
                let current = if *switch { " and make it the current one" } else { "" };
                write!(f, "merge the context {context} into {path}{current}")
            }
            Step::Unmerge { path, context } => write!(f, "take the context {context} out of {path}"),
            Step::RemoveKubeconfig { path } => write!(f, "remove the kubeconfig {path}"),
            Step::Node { node, labels, taints, drop_taints, .. } => {
                let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "label {node}: {}", labels.join(", "))?;
                if !taints.is_empty() {
                    write!(f, "; taint {}", list(taints))?;
                }
                if !drop_taints.is_empty() {
                    write!(f, "; untaint {}", list(drop_taints))?;
                }
                Ok(())
            }
            Step::Approver { .. } => write!(f, "install the approver of kubelets' serving certificates"),
            Step::Approve { node, request, .. } => {
                write!(f, "approve the serving certificate of {node} ({request})")
            }
            Step::DropToken { id, .. } => write!(f, "delete the bootstrap token {id}"),
        }
    }
}
