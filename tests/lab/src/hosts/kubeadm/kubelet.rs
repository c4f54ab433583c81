//! The kubelet's service.

use crate::hosts::Machine;
use crate::hosts::units::State;

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
    let flags = machine.fs.text("/etc/default/kubelet");
    if let Some(odd) = flags.split_whitespace().find(|w| w.contains("--no-such-flag")) {
        return Err(format!("\"command failed\" err=\"failed to parse kubelet flag: unknown flag: {odd}\""));
    }
    if !machine.services.active("containerd") {
        return Err("\"command failed\" err=\"failed to run Kubelet: validate service connection: validate CRI v1 runtime API for endpoint\"".into());
    }
    Ok(())
}
