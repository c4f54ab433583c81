//! Versions of what is installed on a machine, by a package or not.

use crate::seen::HostSeen;

/// The programs of Kubernetes, whose version is exact.
pub const EXACT: [&str; 3] = ["kubeadm", "kubelet", "kubectl"];

/// True when the package or program has the exact version.
pub fn right(host: &HostSeen, name: &str, version: &str) -> bool {
    // A program that is told of lies before a package's.
    if let Some(program) = host.programs.get(name) {
        return program.trim_start_matches('v') == version;
    }
    host.packages.get(name).is_some_and(|p| {
        p.version.strip_prefix(version).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// The version of the runtime that is installed.
pub fn containerd_version(host: &HostSeen) -> Option<&str> {
    // A program that is told of lies before a package's.
    let program = host.programs.get("containerd").map(String::as_str);
    let package = ["containerd.io", "containerd"].iter().find_map(|p| host.packages.get(*p));
    program.or(package.map(|p| p.version.as_str()))
}

/// Major and minor of a version, with an epoch or a `v` before them or not.
pub(crate) fn two_numbers(version: &str) -> Option<(u32, u32)> {
    let bare =
        version.split_once(':').map_or(version, |(_, after_epoch)| after_epoch).trim_start_matches('v');
    let mut parts = bare.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
