//! The files that the document pins, by the address and the digest of each.

use std::collections::BTreeMap;

use cluster_doc::{KubeVersion, Pointer, Refusals, Spec};
use serde::Serialize;
use stage::Failure;

use crate::version::EXACT;

/// Where each goes: its name in `spec.artifacts`, whether it is one program or an archive of some, its folder, and the
/// file that shows it.
pub(crate) const KNOWN: [(&str, &str, &str, &str); 7] = [
    ("kubeadm", "program", "/usr/local/bin", "/usr/local/bin/kubeadm"),
    ("kubelet", "program", "/usr/local/bin", "/usr/local/bin/kubelet"),
    ("kubectl", "program", "/usr/local/bin", "/usr/local/bin/kubectl"),
    ("crictl", "archive", "/usr/local/bin", "/usr/local/bin/crictl"),
    ("cni-plugins", "archive", "/opt/cni/bin", "/opt/cni/bin/bridge"),
    ("containerd", "archive", "/usr/local/bin", "/usr/local/bin/containerd"),
    ("runc", "program", "/usr/local/sbin", "/usr/local/sbin/runc"),
];

/// Where it is noted that a file is this tool's.
pub(crate) const NOTES: &str = "/var/lib/kubeline/pinned";
/// Those that come together.
pub(crate) const KUBERNETES: [&str; 5] = ["kubeadm", "kubelet", "kubectl", "crictl", "cni-plugins"];
pub(crate) const RUNTIME: [&str; 2] = ["containerd", "runc"];

/// A file that the document pins.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pin {
    /// Its name in `spec.artifacts`.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Its SHA-256.
    pub sha256: String,
    /// The version that it has to be, where it tells one.
    pub version: Option<String>,
}

/// Where its publisher gives the digest.
pub(crate) fn publisher(name: &str, version: KubeVersion) -> String {
    match name {
        "crictl" => "the .sha256 beside it at github.com/kubernetes-sigs/cri-tools/releases".to_owned(),
        "cni-plugins" => {
            "the .sha256 beside it at github.com/containernetworking/plugins/releases".to_owned()
        }
        "containerd" => "the .sha256sum beside it at github.com/containerd/containerd/releases".to_owned(),
        "runc" => "runc.sha256sum beside it at github.com/opencontainers/runc/releases".to_owned(),
        _ => format!("curl -fsSL https://dl.k8s.io/release/v{version}/bin/linux/amd64/{name}.sha256"),
    }
}

/// What the document pins, by name.
///
/// # Errors
/// Exit 3 when one is missing of those that come together, naming it and where its digest is; or an address is none.
pub fn of(spec: &Spec, version: KubeVersion) -> Result<BTreeMap<String, Pin>, Failure> {
    let mut pins = BTreeMap::new();
    let mut wrong = Refusals::default();
    let at = Pointer::root().key("spec").key("artifacts");
    for (n, artefact) in spec.artifacts.iter().flatten().enumerate() {
        let name = artefact.name.to_string();
        if !KNOWN.iter().any(|(known, ..)| *known == name) {
            continue;
        }
        let plain = artefact.url.chars().all(|c| c.is_ascii_graphic());
        if !plain || !(artefact.url.starts_with("https://") || artefact.url.starts_with("http://")) {
            wrong.add(at.index(n).key("url"), "is no address that a machine could fetch; write https://...");
        }
        let version = EXACT.contains(&name.as_str()).then(|| version.to_string());
        let pin = Pin { url: artefact.url.clone(), sha256: artefact.sha256.to_string(), version, name };
        pins.insert(pin.name.clone(), pin);
    }
    for group in [&KUBERNETES[..], &RUNTIME[..]] {
        let given = group.iter().any(|name| pins.contains_key(*name));
        for name in group.iter().filter(|name| given && !pins.contains_key(**name)) {
            let message = format!(
                "lacks \"{name}\": {} come together; its digest: {}",
                group.join(", "),
                publisher(name, version)
            );
            wrong.add(at.clone(), message);
        }
    }
    if wrong.is_empty() { Ok(pins) } else { Err(Failure::from(wrong)) }
}
