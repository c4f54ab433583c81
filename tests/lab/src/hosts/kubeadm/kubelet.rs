//! The kubelet's service.

use crate::hosts::Machine;
use crate::hosts::programs::systemctl::State;

/// Starts the kubelet: without kubeadm's configuration it ends at once, and systemd starts it again and again.
pub fn start(machine: &mut Machine) -> Result<(), String> {
    let config = machine.fs.exists("/var/lib/kubelet/config.yaml");
    let state = if config { State::Active } else { State::Restarting };
    machine.services.set("kubelet", state, i32::from(!config));
    Ok(())
}
