//! kubeadm's checks before it touches a host, in its order and words.

use super::config::Config;
use super::{Words, ports};
use crate::hosts::Machine;

/// What is about to be done.
#[derive(Clone, Copy, PartialEq)]
pub enum Purpose {
    /// `kubeadm init`.
    Init,
    /// `kubeadm join` of a worker, or the first checks of a control plane's.
    Join,
    /// The further checks of a control plane's join.
    ControlPlane,
}

/// What kubeadm says when the runtime's socket is not there.
pub fn no_runtime(socket: &str) -> String {
    let path = socket.trim_start_matches("unix://").replace("/var/run/", "/run/");
    format!(
        "could not connect to the container runtime: failed to create new CRI runtime service: validate service connection: validate CRI v1 \
         runtime API for endpoint \"unix://{path}\": rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while \
         dialing: dial unix {path}: connect: no such file or directory\""
    )
}

fn runtime(machine: &Machine, config: &Config) -> Option<String> {
    let path = config.cri_socket.trim_start_matches("unix://").replace("/var/run/", "/run/");
    if path != "/run/containerd/containerd.sock" || !machine.services.active("containerd") {
        return Some(no_runtime(&config.cri_socket));
    }
    machine.kube.cri_off.then(|| {
        format!(
            "could not connect to the container runtime: failed to create new CRI runtime service: validate service connection: validate CRI v1 \
             runtime API for endpoint \"unix://{path}\": rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService"
        )
    })
}

/// Checks a machine; warnings are said, errors end it.
///
/// # Errors
/// kubeadm's last line, after the list of what failed.
pub fn check(
    machine: &Machine,
    config: &Config,
    purpose: Purpose,
    ignore: &[String],
    root: bool,
    words: &mut Words,
) -> Result<(), String> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut warnings: Vec<(String, String)> = Vec::new();
    let mut error = |name: String, text: String| found.push((name, text));
    let exists = |path: &str| machine.fs.exists(path);
    let name_of = |path: &str| path.replace('/', "-");
    let open = ports(machine);
    let port = |p: u16| (format!("Port-{p}"), format!("Port {p} is in use"));
    if !root {
        error("IsPrivilegedUser".into(), "user is not running as root".into());
        return report(found, warnings, ignore, words);
    }
    if purpose == Purpose::Init {
        if machine.boot.cores < 2 {
            error(
                "NumCPU".into(),
                format!("the number of available CPUs {} is less than the required 2", machine.boot.cores),
            );
        }
        if machine.boot.memory_mib < 1700 {
            error(
                "Mem".into(),
                format!("the system RAM ({} MB) is less than the minimum 1700 MB", machine.boot.memory_mib),
            );
        }
    }
    if purpose != Purpose::ControlPlane
        && let Some(text) = runtime(machine, config)
    {
        error("CRI".into(), text.clone());
        error("ContainerRuntimeVersion".into(), text);
    }
    if purpose == Purpose::Init || purpose == Purpose::ControlPlane {
        for wanted in [config.port, 10259, 10257] {
            if open.contains(&wanted) {
                let (name, text) = port(wanted);
                error(name, text);
            }
        }
        for pod in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd"] {
            let path = format!("/etc/kubernetes/manifests/{pod}.yaml");
            if exists(&path) {
                error(format!("FileAvailable-{}", name_of(&path)), format!("{path} already exists"));
            }
        }
    }
    if purpose != Purpose::ControlPlane {
        if purpose == Purpose::Join {
            for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/bootstrap-kubelet.conf"] {
                if exists(path) {
                    error(format!("FileAvailable-{}", name_of(path)), format!("{path} already exists"));
                }
            }
        }
        if machine.sysctl.get("net.ipv4.ip_forward").is_none_or(|v| v != "1") {
            let path = "/proc/sys/net/ipv4/ip_forward";
            error(format!("FileContent-{}", name_of(path)), format!("{path} contents are not set to 1"));
        }
        if machine.swap {
            warnings.push((
                "Swap".into(),
                "swap is supported for cgroup v2 only. The kubelet must be properly configured to use swap. Please refer to \
                 https://kubernetes.io/docs/concepts/architecture/nodes/#swap-memory, or disable swap on the node"
                    .into(),
            ));
        }
        if !machine.packages.provides("kubelet") {
            error(
                "KubeletVersion".into(),
                "couldn't get kubelet version: cannot execute 'kubelet --version': executable file not found in $PATH".into(),
            );
        }
        let enabled =
            machine.fs.walk("/etc/systemd/system").iter().any(|p| p.ends_with(".wants/kubelet.service"));
        if !enabled {
            let text = "kubelet service is not enabled, please run 'systemctl enable kubelet.service'";
            warnings.push(("Service-Kubelet".into(), text.into()));
        }
        if open.contains(&10250) {
            let (name, text) = port(10250);
            error(name, text);
        }
    }
    if purpose == Purpose::Join && config.join.as_ref().is_some_and(|j| !j.control_plane) {
        let path = "/etc/kubernetes/pki/ca.crt";
        if exists(path) {
            error(format!("FileAvailable-{}", name_of(path)), format!("{path} already exists"));
        }
    }
    if purpose == Purpose::Init || purpose == Purpose::ControlPlane {
        for wanted in [2379, 2380] {
            if open.contains(&wanted) {
                let (name, text) = port(wanted);
                error(name, text);
            }
        }
        if machine.fs.list("/var/lib/etcd").is_ok_and(|l| !l.is_empty()) {
            error("DirAvailable--var-lib-etcd".into(), "/var/lib/etcd is not empty".into());
        }
    }
    let minor = machine.packages.version("kubelet").and_then(|v| v.split('.').nth(1)?.parse::<u32>().ok());
    if purpose != Purpose::ControlPlane
        && minor.is_some_and(|m| m >= 35)
        && !machine.fs.exists("/sys/fs/cgroup/cgroup.controllers")
    {
        let text = "cgroups v1 support is deprecated and will be removed in a future release. Please migrate to cgroups v2. To explicitly enable \
                    cgroups v1 support for kubelet v1.35 or newer, you must set the kubelet configuration option 'FailCgroupV1' to 'false'. You must also \
                    explicitly skip this validation. For more information, see https://git.k8s.io/enhancements/keps/sig-node/5573-remove-cgroup-v1";
        error("SystemVerification".into(), text.into());
    }
    if purpose == Purpose::Init {
        version_skew(machine, config, &mut found);
    }
    report(found, warnings, ignore, words)
}

fn version_skew(machine: &Machine, config: &Config, found: &mut Vec<(String, String)>) {
    let minor = |v: &str| v.trim_start_matches('v').split('.').nth(1).and_then(|m| m.parse::<u32>().ok());
    let own =
        machine.packages.version("kubelet").map(|v| v.split('-').next().unwrap_or_default().to_string());
    if let Some(kubelet) = own
        && minor(&kubelet) > minor(&config.version)
    {
        let text = format!(
            "the kubelet version is higher than the control plane version. This is not a supported version skew and may lead to a malfunctional \
             cluster. Kubelet version: \"{kubelet}\" Control plane version: \"{}\"",
            config.version.trim_start_matches('v')
        );
        found.push(("KubeletVersion".into(), text));
    }
}

fn report(
    found: Vec<(String, String)>,
    warnings: Vec<(String, String)>,
    ignore: &[String],
    words: &mut Words,
) -> Result<(), String> {
    let ignored =
        |name: &str| ignore.iter().any(|i| i.eq_ignore_ascii_case(name) || i.eq_ignore_ascii_case("all"));
    for (name, text) in &warnings {
        words.err(format!("\t[WARNING {name}]: {text}"));
    }
    let (spared, fatal): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| ignored(name));
    for (name, text) in &spared {
        words.err(format!("\t[WARNING {name}]: {text}"));
    }
    if fatal.is_empty() {
        return Ok(());
    }
    words.err("[preflight] Some fatal errors occurred:");
    for (name, text) in &fatal {
        words.err(format!("\t[ERROR {name}]: {text}"));
    }
    words.err("[preflight] If you know what you are doing, you can make a check non-fatal with `--ignore-preflight-errors=...`");
    Err("error execution phase preflight: preflight checks failed".into())
}
