//! The images that a cluster of this version needs.

use cluster_doc::KubeVersion;
use stage::Failure;

use crate::approver;
use crate::files;
use crate::want::Want;

/// The tags of CoreDNS and etcd that kubeadm of a minor installs (cmd/kubeadm/app/constants, as
/// `kubeadm config images list` of 1.36.2 prints them).
const TAGS: [(u16, &str, &str); 1] = [(36, "v1.14.2", "3.6.8-0")];

/// What kubeadm and this tool run, as their publishers name it.
fn upstream(version: KubeVersion) -> Result<Vec<String>, Failure> {
    let Some((_, coredns, etcd)) = TAGS.iter().find(|(minor, ..)| *minor == version.minor()) else {
        return Err(Failure::precondition(format!(
            "cannot know the images of etcd and CoreDNS for Kubernetes {version}"
        ))
        .because("the table of this release has others")
        .hint(format!("kubeadm config images list --kubernetes-version {}", version.tag())));
    };
    let tag = version.tag();
    let components = ["kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler"];
    let mut all: Vec<String> = components.iter().map(|c| format!("{}/{c}:{tag}", files::REGISTRY)).collect();
    all.push(format!("{}/coredns/coredns:{coredns}", files::REGISTRY));
    all.push(format!("{}/etcd:{etcd}", files::REGISTRY));
    all.push(files::pause(version, files::REGISTRY));
    all.push(approver::IMAGE.to_owned());
    Ok(all)
}

/// The lines of `kadm-bootstrap images`.
///
/// # Errors
/// Exit 4 for a version whose images are not known.
pub fn list(want: &Want, with_upstream: bool) -> Result<String, Failure> {
    let mut lines: Vec<String> = upstream(want.version)?
        .into_iter()
        .map(|image| {
            let here = match want.registry.as_str() {
                files::REGISTRY => image.clone(),
                // kubeadm takes CoreDNS from below its own name only where the registry is Kubernetes' own
                // (GetDNSImage in cmd/kubeadm/app/images).
                registry => match image.strip_prefix("registry.k8s.io/coredns/") {
                    Some(rest) => format!("{registry}/{rest}"),
                    None => kube_apply::in_registry(&image, registry),
                },
            };
            if with_upstream { format!("{image} {here}\n") } else { format!("{here}\n") }
        })
        .collect();
    lines.sort();
    Ok(lines.concat())
}
