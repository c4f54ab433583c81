//! What Kubernetes asks of a machine's kernel: cgroups, and what kube-proxy needs.

use crate::seen::HostSeen;
use crate::version::two_numbers;
use crate::want::Want;

/// The oldest kernel whose nftables kube-proxy takes (kubernetes.io, "Virtual IPs and Service Proxies": nftables).
const NFTABLES: (u32, u32) = (5, 13);

/// True when the document lets the kubelets run on cgroup v1.
pub(crate) fn allows_cgroup_v1(want: &Want) -> bool {
    want.kubelet.get("failCgroupV1").is_some_and(|v| *v == false)
}

/// What is to be said of a machine that runs on cgroup v1 all the same.
pub fn cgroup_v1(want: &Want, host: &HostSeen) -> Option<&'static str> {
    let old = host.cgroup == 1 && (want.version.minor() < 35 || allows_cgroup_v1(want));
    old.then_some("its kernel has cgroup v1 alone, which a coming Kubernetes will not run on")
}

/// Why a machine cannot have kube-proxy in its nftables mode.
pub fn too_old(want: &Want, host: &HostSeen) -> Option<String> {
    let kernel = two_numbers(&host.kernel)?;
    (want.proxy_mode == "nftables" && kernel < NFTABLES).then(|| {
        format!(
            "its kernel {} is older than {}.{}, which kube-proxy needs for the data plane nftables",
            host.kernel, NFTABLES.0, NFTABLES.1
        )
    })
}
