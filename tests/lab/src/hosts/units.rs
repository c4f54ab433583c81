//! systemd's units: their files, links and states, and what starting one means.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fs::{Fs, Kind, Node};
use super::programs::apt_get;
use super::{Host, Hosts, Machine, haproxy, kubeadm, nfs, vrrp, words};
use crate::Window;

/// What a unit does now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum State {
    /// Not running.
    #[default]
    Inactive,
    /// Running, or a timer that waits.
    Active,
    /// Ended badly.
    Failed,
    /// Waits to be started again after it ended.
    Restarting,
}

/// The state of one unit.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// What it does now.
    pub state: State,
    /// The exit status of its main process.
    pub status: i32,
    /// The main process.
    pub pid: u32,
    /// How often systemd started it again by itself.
    pub restarts: u32,
    /// The unit file's text when it was loaded.
    pub(super) loaded: Option<String>,
}

/// The states of a machine's units, by full unit name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    pub(super) units: BTreeMap<String, Service>,
    next_pid: u32,
}

impl Services {
    /// True when the unit runs (`haproxy` or `haproxy.service`).
    pub fn active(&self, name: &str) -> bool {
        self.units.get(&full(name)).is_some_and(|u| u.state == State::Active)
    }

    /// The state of a unit.
    pub fn get(&self, name: &str) -> Service {
        self.units.get(&full(name)).cloned().unwrap_or_default()
    }

    /// Sets a unit's state.
    pub fn set(&mut self, name: &str, state: State, status: i32) {
        self.next_pid += 1;
        let pid = 1000 + self.next_pid;
        let unit = self.units.entry(full(name)).or_default();
        unit.pid = if state == State::Active { pid } else { 0 };
        unit.state = state;
        unit.status = status;
    }

    /// Everything ends, as at power off.
    pub fn all_stopped(&mut self) {
        self.units.clear();
    }
}

pub(super) fn full(name: &str) -> String {
    let known = [".service", ".timer", ".socket", ".target", ".mount", ".swap", ".path"];
    if known.iter().any(|s| name.ends_with(s)) { name.into() } else { format!("{name}.service") }
}

const DIRS: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// The unit's own name after aliases, and its file.
pub(super) fn fragment(fs: &Fs, name: &str) -> Option<(String, String)> {
    let name = full(name);
    for dir in DIRS {
        let path = format!("{dir}/{name}");
        match fs.link_node(&path).map(|n| n.kind.clone()) {
            Ok(Kind::File(_)) => return Some((name, path)),
            Ok(Kind::Link(to)) => {
                let real = to.rsplit('/').next().unwrap_or_default().to_string();
                let path = fs.resolve(&path, true).unwrap_or(path);
                return Some((if to == "/dev/null" { name } else { real }, path));
            }
            _ => {}
        }
    }
    let (template, instance) = name.split_once('@')?;
    let (_, kind) = instance.rsplit_once('.')?;
    DIRS.iter().map(|d| format!("{d}/{template}@.{kind}")).find(|p| fs.exists(p)).map(|p| (name.clone(), p))
}

/// The unit's file and its drop-ins below /etc, as systemd reads them; `None` when there is no such unit.
pub(super) fn definition(fs: &Fs, name: &str) -> Option<String> {
    let (unit, path) = fragment(fs, name)?;
    let mut text = fs.text(&path);
    for drop_in in fs.walk(&format!("/etc/systemd/system/{unit}.d")).iter().filter(|p| p.ends_with(".conf")) {
        text.push_str(&fs.text(drop_in));
    }
    Some(text)
}

/// Has systemd read all units anew.
pub(super) fn daemon_reload(machine: &mut Machine) {
    for unit in machine.services.units.keys().cloned().collect::<Vec<_>>() {
        let text = definition(&machine.fs, &unit);
        if let Some(service) = machine.services.units.get_mut(&unit) {
            service.loaded = text;
        }
    }
}

/// Runs the commands that the loaded definition gives for a moment such as `ExecStopPost`: those that drop-ins
/// bring. One that the lab does not model is logged, and the journal says so.
fn hooks(hosts: &Hosts, machine: &mut Machine, unit: &str, moment: &str) {
    let Some(text) = machine.services.get(unit).loaded else { return };
    let lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix(moment)?.strip_prefix('=')).collect();
    for line in lines {
        let argv = words::split(line.trim_start_matches('-')).unwrap_or_default();
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        match argv.as_slice() {
            ["/bin/mkdir", "-p", folder] => drop(machine.fs.mkdir_p(folder, 0o755)),
            // The address goes with the instance already.
            ["/sbin/ip", "address", "delete", _, "dev", _] => {}
            ["/bin/sh", "-c", script] => match said_into(script) {
                Some((number, file)) => machine.fs.put(file, format!("{number}\n"), 0o644, "root", "root"),
                None => unknown(hosts, machine, unit, line),
            },
            _ => unknown(hosts, machine, unit, line),
        }
    }
}

/// `mkdir -p FOLDER && echo NUMBER >FILE`.
fn said_into(script: &str) -> Option<(&str, &str)> {
    let (folder, rest) = script.strip_prefix("mkdir -p ")?.split_once(" && echo ")?;
    let (number, file) = rest.split_once(" >")?;
    (number.parse::<i32>().is_ok() && file.starts_with(folder)).then_some((number, file))
}

fn unknown(hosts: &Hosts, machine: &mut Machine, unit: &str, line: &str) {
    machine.log(unit, format!("the lab does not model: {line}"));
    hosts.world().journal.record_unknown(Window::Ssh, &machine.boot.name, &format!("{unit}: {line}"));
}

pub(super) fn setting(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|l| l.trim().split_once('='))
        .find(|(k, _)| k.trim() == key)
        .map(|(_, v)| v.trim().to_string())
}

pub(super) fn masked(fs: &Fs, name: &str) -> bool {
    let path = format!("/etc/systemd/system/{}", full(name));
    matches!(fs.link_node(&path), Ok(Node { kind: Kind::Link(to), .. }) if to == "/dev/null")
}

pub(super) fn unit_file_state(fs: &Fs, name: &str) -> Option<&'static str> {
    if masked(fs, name) {
        return Some("masked");
    }
    let (unit, path) = fragment(fs, name)?;
    let wanted = fs
        .walk("/etc/systemd/system")
        .iter()
        .any(|p| p.ends_with(&format!(".wants/{unit}")) || p.ends_with(&format!(".requires/{unit}")));
    Some(match () {
        () if wanted => "enabled",
        () if fs.text(&path).lines().any(|l| l.trim() == "[Install]") => "disabled",
        () => "static",
    })
}

fn link(fs: &Fs, name: &str) -> Vec<(String, String)> {
    let Some((unit, path)) = fragment(fs, name) else { return Vec::new() };
    let text = fs.text(&path);
    let wanted = setting(&text, "WantedBy").into_iter().map(|w| (w, "wants"));
    let required = setting(&text, "RequiredBy").into_iter().map(|w| (w, "requires"));
    wanted
        .chain(required)
        .flat_map(|(targets, how)| {
            targets.split_whitespace().map(|t| format!("{t}.{how}")).collect::<Vec<_>>()
        })
        .map(|dir| (format!("/etc/systemd/system/{dir}/{unit}"), path.clone()))
        .collect()
}

pub(super) fn enable(machine: &mut Machine, name: &str) -> String {
    let mut text = String::new();
    for (at, to) in link(&machine.fs, name) {
        let _ = machine.fs.mkdir_p(&super::fs::parent(&at), 0o755);
        if machine.fs.symlink(&to, &at).is_ok() {
            text.push_str(&format!("Created symlink '{at}' \u{2192} '{to}'.\n"));
        }
    }
    text
}

pub(super) fn disable(machine: &mut Machine, name: &str) -> String {
    let unit = fragment(&machine.fs, name).map_or_else(|| full(name), |(unit, _)| unit);
    let links: Vec<String> = machine
        .fs
        .walk("/etc/systemd/system")
        .into_iter()
        .filter(|p| p.ends_with(&format!("s/{unit}")))
        .collect();
    let mut text = String::new();
    for at in links.iter().filter(|p| p.contains(".wants/") || p.contains(".requires/")) {
        let _ = machine.fs.remove(at);
        text.push_str(&format!("Removed '{at}'.\n"));
    }
    text
}

/// Starts a unit that the lab gives a meaning to. The error is the log line.
pub(super) fn start(hosts: &Hosts, host: &Host, unit: &str) -> Result<(), String> {
    let mut machine = host.machine();
    // systemd reads a unit when it first needs it, and again on daemon-reload alone.
    let text = definition(&machine.fs, unit);
    let service = machine.services.units.entry(unit.into()).or_default();
    service.loaded = service.loaded.take().or(text);
    if machine.services.active(unit) && unit != "nfs-server.service" {
        return Ok(());
    }
    hooks(hosts, &mut machine, unit, "ExecStartPre");
    let started = match unit {
        "haproxy.service" => haproxy::start(hosts, host.vmid, &mut machine),
        "keepalived.service" => {
            if !machine.fs.exists("/etc/keepalived/keepalived.conf") {
                // ConditionFileNotEmpty in the unit: systemctl exits 0 and the unit stays inactive.
                machine.services.set(unit, State::Inactive, 0);
                return Ok(());
            }
            vrrp::load(&mut machine)
        }
        "containerd.service" => kubeadm::runtime::start(&mut machine),
        "kubelet.service" => return kubeadm::kubelet::start(&mut machine),
        "nfs-server.service" => {
            for line in nfs::export(&mut machine).0 {
                machine.log(unit, line);
            }
            Ok(())
        }
        _ => Ok(()),
    };
    match &started {
        Ok(()) => {
            machine.services.set(unit, State::Active, 0);
            hooks(hosts, &mut machine, unit, "ExecStartPost");
        }
        Err(line) => {
            machine.log(unit, line.clone());
            machine.services.set(unit, State::Failed, 1);
            hooks(hosts, &mut machine, unit, "ExecStopPost");
        }
    }
    started
}

pub(super) fn stop(hosts: &Hosts, host: &Host, unit: &str) {
    let mut machine = host.machine();
    let ran = machine.services.active(unit);
    match unit {
        "haproxy.service" => machine.haproxy = None,
        "keepalived.service" => machine.keepalived = None,
        "nfs-server.service" => machine.exports.clear(),
        _ => {}
    }
    machine.services.set(unit, State::Inactive, 0);
    if ran {
        hooks(hosts, &mut machine, unit, "ExecStopPost");
    }
}

pub(super) fn reload(hosts: &Hosts, host: &Host, unit: &str) -> Result<(), String> {
    let mut machine = host.machine();
    let done = match unit {
        "haproxy.service" => haproxy::start(hosts, host.vmid, &mut machine),
        "keepalived.service" => vrrp::load(&mut machine),
        "nfs-server.service" => {
            for line in nfs::export(&mut machine).0 {
                machine.log(unit, line);
            }
            Ok(())
        }
        "chrony.service" | "containerd.service" => Err("reload is not applicable".into()),
        _ => Ok(()),
    };
    if let Err(line) = &done {
        machine.log(unit, line.clone());
    }
    done
}

/// Starts what is enabled, as at boot.
pub fn boot(hosts: &Hosts, host: &Arc<Host>) {
    let mut units: Vec<String> = {
        let machine = host.machine();
        let links = machine.fs.walk("/etc/systemd/system");
        let names = links
            .iter()
            .filter(|p| p.contains(".wants/"))
            .filter_map(|p| p.rsplit('/').next())
            .map(String::from);
        names.filter(|n| n.contains('.')).collect()
    };
    units.sort_by_key(|u| (u != "containerd.service", u.clone()));
    for unit in units.iter().filter(|u| !u.ends_with(".wants")) {
        // A unit that fails at boot is in its log and state; the boot goes on.
        let _ = start(hosts, host, unit);
    }
}

fn units_of(package: &str) -> &'static [&'static str] {
    match package {
        "haproxy" => &["haproxy.service"],
        "keepalived" => &["keepalived.service"],
        "chrony" => &["chrony.service"],
        "containerd" | "containerd.io" => &["containerd.service"],
        "kubelet" => &["kubelet.service"],
        "qemu-guest-agent" => &["qemu-guest-agent.service"],
        "prometheus-node-exporter" => &["prometheus-node-exporter.service"],
        "nfs-kernel-server" => &["nfs-server.service"],
        _ => &[],
    }
}

/// What a package's maintainer scripts do: enable and start on the first installation, restart on an upgrade.
pub fn installed(hosts: &Hosts, host: &Arc<Host>, package: &str, upgrade: bool) {
    for unit in units_of(package) {
        let policy = {
            let mut machine = host.machine();
            daemon_reload(&mut machine);
            if !upgrade {
                enable(&mut machine, unit);
            }
            apt_get::policy_forbids(&machine.fs) || masked(&machine.fs, unit)
        };
        // kubelet's package starts nothing by itself on an upgrade; the others restart what ran.
        if policy || (upgrade && *unit == "kubelet.service") {
            continue;
        }
        if upgrade {
            if host.machine().services.active(unit) {
                stop(hosts, host, unit);
            } else {
                continue;
            }
        }
        // A service that does not start does not fail its package's installation: its log says why.
        let _ = start(hosts, host, unit);
    }
}

/// What a package's maintainer scripts do when it is removed.
pub fn removed(hosts: &Hosts, host: &Arc<Host>, package: &str) {
    for unit in units_of(package) {
        stop(hosts, host, unit);
        disable(&mut host.machine(), unit);
    }
}
