//! containerd.

use crate::hosts::Machine;

fn settings(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
}

/// Whether containerd takes a configuration.
///
/// # Errors
/// Its log line when it does not.
pub fn check(text: &str, path: &str) -> Result<(), String> {
    let settings = settings(text);
    if let Some(odd) =
        settings.iter().find(|l| !l.contains('=') && !l.starts_with('[') && !l.starts_with([']', '"', '\'']))
    {
        return Err(format!("containerd: failed to load TOML: {path}: expected '=' in {odd:?}"));
    }
    let version = settings
        .iter()
        .find_map(|l| l.strip_prefix("version"))
        .map(|v| v.trim_start_matches([' ', '=']).trim());
    if let Some(odd) = version.filter(|v| !["1", "2", "3", "4"].contains(v)) {
        return Err(format!("containerd: unsupported config version {odd}"));
    }
    Ok(())
}

/// Starts containerd with its configuration.
///
/// # Errors
/// The log line when the configuration is none that containerd takes.
pub fn start(machine: &mut Machine) -> Result<(), String> {
    let path = "/etc/containerd/config.toml";
    let text = machine.fs.text(path);
    check(&text, path)?;
    let settings = settings(&text);
    let disabled = settings.iter().find(|l| l.starts_with("disabled_plugins")).copied().unwrap_or_default();
    machine.kube.cri_off = disabled.contains("\"cri\"") || disabled.contains("v1.cri\"");
    Ok(())
}
