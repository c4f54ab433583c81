//! The kubelet's service.

use serde_json::{Map, Value, json};

use super::config::Config;
use crate::hosts::Machine;
use crate::hosts::units::State;

/// The fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1 of 1.36).
pub const FIELDS: [&str; 123] = [
    "address",
    "allowedUnsafeSysctls",
    "authentication",
    "authorization",
    "cgroupDriver",
    "cgroupRoot",
    "cgroupsPerQOS",
    "clusterDNS",
    "clusterDomain",
    "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxFiles",
    "containerLogMaxSize",
    "containerLogMaxWorkers",
    "containerLogMonitorInterval",
    "containerRuntimeEndpoint",
    "contentType",
    "cpuCFSQuota",
    "cpuCFSQuotaPeriod",
    "cpuManagerPolicy",
    "cpuManagerPolicyOptions",
    "cpuManagerReconcilePeriod",
    "crashLoopBackOff",
    "enableContentionProfiling",
    "enableControllerAttachDetach",
    "enableDebuggingHandlers",
    "enableProfilingHandler",
    "enableServer",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enforceNodeAllocatable",
    "eventBurst",
    "eventRecordQPS",
    "evictionHard",
    "evictionMaxPodGracePeriod",
    "evictionMinimumReclaim",
    "evictionPressureTransitionPeriod",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "failCgroupV1",
    "failSwapOn",
    "featureGates",
    "fileCheckFrequency",
    "hairpinMode",
    "healthzBindAddress",
    "healthzPort",
    "httpCheckFrequency",
    "imageGCHighThresholdPercent",
    "imageGCLowThresholdPercent",
    "imageMaximumGCAge",
    "imageMinimumGCAge",
    "imagePullCredentialsVerificationPolicy",
    "imageServiceEndpoint",
    "iptablesDropBit",
    "iptablesMasqueradeBit",
    "kernelMemcgNotification",
    "kubeAPIBurst",
    "kubeAPIQPS",
    "kubeReserved",
    "kubeReservedCgroup",
    "kubeletCgroups",
    "localStorageCapacityIsolation",
    "logging",
    "makeIPTablesUtilChains",
    "maxOpenFiles",
    "maxParallelImagePulls",
    "maxPods",
    "memoryManagerPolicy",
    "memorySwap",
    "memoryThrottlingFactor",
    "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds",
    "nodeStatusMaxImages",
    "nodeStatusReportFrequency",
    "nodeStatusUpdateFrequency",
    "oomScoreAdj",
    "podCIDR",
    "podLogsDir",
    "podPidsLimit",
    "podsPerCore",
    "port",
    "preloadedImagesVerificationAllowlist",
    "protectKernelDefaults",
    "providerID",
    "qosReserved",
    "readOnlyPort",
    "registerNode",
    "registerWithTaints",
    "registryBurst",
    "registryPullQPS",
    "reservedMemory",
    "reservedSystemCPUs",
    "resolvConf",
    "rotateCertificates",
    "runOnce",
    "runtimeRequestTimeout",
    "seccompDefault",
    "serializeImagePulls",
    "serverTLSBootstrap",
    "showHiddenMetricsForVersion",
    "shutdownGracePeriod",
    "shutdownGracePeriodByPodPriority",
    "shutdownGracePeriodCriticalPods",
    "singleProcessOOMKill",
    "staticPodPath",
    "staticPodURL",
    "staticPodURLHeader",
    "streamingConnectionIdleTimeout",
    "syncFrequency",
    "systemCgroups",
    "systemReserved",
    "systemReservedCgroup",
    "tlsCertFile",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "tlsPrivateKeyFile",
    "topologyManagerPolicy",
    "topologyManagerPolicyOptions",
    "topologyManagerScope",
    "tracing",
    "userNamespaces",
    "volumePluginDir",
    "volumeStatsAggPeriod",
];

/// The text of a KubeletConfiguration: what kubeadm sets unless it was given, and what was given.
pub fn configuration(config: &Config, more: &[(&str, Value)]) -> String {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_string(), value);
    set("cgroupDriver", json!("systemd"));
    set("rotateCertificates", json!(true));
    set("staticPodPath", json!("/etc/kubernetes/manifests"));
    for (name, value) in more {
        set(name, value.clone());
    }
    for (name, value) in &config.kubelet {
        set(name, written(value));
    }
    set("apiVersion", json!("kubelet.config.k8s.io/v1beta1"));
    set("kind", json!("KubeletConfiguration"));
    fields.sort_keys();
    serde_saphyr::to_string(&fields).unwrap_or_default()
}

/// A value as Go writes it again: a duration in hours, minutes and seconds.
fn written(value: &Value) -> Value {
    let seconds = value.as_str().and_then(|s| s.strip_suffix('s')).and_then(|s| s.parse::<u64>().ok());
    match (value, seconds) {
        (_, Some(s)) if s >= 3600 => json!(format!("{}h{}m{}s", s / 3600, s / 60 % 60, s % 60)),
        (_, Some(s)) if s >= 60 => json!(format!("{}m{}s", s / 60, s % 60)),
        (Value::Object(map), _) => map.iter().map(|(k, v)| (k.clone(), written(v))).collect(),
        _ => value.clone(),
    }
}

/// The serving certificate that the cluster gave to the kubelet, and its key (`--cert-dir`, the link that the
/// certificate manager of client-go keeps).
pub const SERVING: &str = "/var/lib/kubelet/pki/kubelet-server-current.pem";

/// Starts the kubelet: without kubeadm's configuration it ends at once, and systemd starts it again and again.
///
/// # Errors
/// None now: as for a unit of `Type=simple`, systemctl sees the process begin and is content.
pub fn start(machine: &mut Machine) -> Result<(), String> {
    let state = match health(machine) {
        Ok(()) => State::Active,
        Err(line) => {
            machine.log("kubelet.service", line);
            State::Restarting
        }
    };
    machine.services.set("kubelet", state, i32::from(state != State::Active));
    machine.kube.kubelet_runs =
        machine.packages.version("kubelet").and_then(|v| v.split('-').next()).map(String::from);
    Ok(())
}

/// Whether the kubelet can run here.
///
/// # Errors
/// Its last log line.
pub fn health(machine: &Machine) -> Result<(), String> {
    let path = "/var/lib/kubelet/config.yaml";
    let Ok(config) = machine.fs.read(path) else {
        return Err(format!(
            "\"command failed\" err=\"failed to load kubelet config file, path: {path}, error: failed to load Kubelet config file {path}, \
             error failed to read kubelet config file \\\"{path}\\\", error: open {path}: no such file or directory\""
        ));
    };
    let config = String::from_utf8_lossy(config);
    if machine.swap && !config.contains("failSwapOn: false") {
        return Err("\"command failed\" err=\"failed to run Kubelet: running with swap on is not supported, please disable swap or set \
                    --fail-swap-on flag to false\""
            .into());
    }
    let minor = machine.packages.version("kubelet").and_then(|v| v.split('.').nth(1)?.parse::<u32>().ok());
    let v1 = !machine.fs.exists("/sys/fs/cgroup/cgroup.controllers");
    if v1 && minor.is_some_and(|m| m >= 35) && !config.contains("failCgroupV1: false") {
        return Err("\"command failed\" err=\"failed to run Kubelet: kubelet is configured to not run on a host using cgroup v1. cgroup v1 \
                    support is unsupported and will be removed in a future release\"".into());
    }
    let flags = machine.fs.text("/etc/default/kubelet");
    if let Some(odd) = flags.split_whitespace().find(|w| w.contains("--no-such-flag")) {
        return Err(format!("\"command failed\" err=\"failed to parse kubelet flag: unknown flag: {odd}\""));
    }
    if !machine.services.active("containerd") {
        return Err("\"command failed\" err=\"failed to run Kubelet: validate service connection: validate CRI v1 runtime API for endpoint\"".into());
    }
    Ok(())
}
