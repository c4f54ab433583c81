//! systemd as far as systemctl shows it: unit files read from the file system, links, states.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Ctx, Entry, Output, Run, apt};
use crate::hosts::fs::{Fs, Kind, Node};
use crate::hosts::{Host, Hosts, Machine, haproxy, kubeadm, nfs, vrrp, words};

/// The programs.
pub const TABLE: &[Entry] =
    &[("journalctl", "", Run::Quick(journalctl)), ("systemctl", "", Run::Slow(systemctl))];

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
    loaded: Option<String>,
}

/// The states of a machine's units, by full unit name.
#[derive(Clone, Debug, Default)]
pub struct Services {
    units: BTreeMap<String, Service>,
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

fn full(name: &str) -> String {
    let known = [".service", ".timer", ".socket", ".target", ".mount", ".swap", ".path"];
    if known.iter().any(|s| name.ends_with(s)) { name.into() } else { format!("{name}.service") }
}

const DIRS: [&str; 3] = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];

/// The unit's own name after aliases, and its file.
fn fragment(fs: &Fs, name: &str) -> Option<(String, String)> {
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

fn setting(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|l| l.trim().split_once('='))
        .find(|(k, _)| k.trim() == key)
        .map(|(_, v)| v.trim().to_string())
}

fn masked(fs: &Fs, name: &str) -> bool {
    let path = format!("/etc/systemd/system/{}", full(name));
    matches!(fs.link_node(&path), Ok(Node { kind: Kind::Link(to), .. }) if to == "/dev/null")
}

fn unit_file_state(fs: &Fs, name: &str) -> Option<&'static str> {
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

fn enable(machine: &mut Machine, name: &str) -> String {
    let mut text = String::new();
    for (at, to) in link(&machine.fs, name) {
        let _ = machine.fs.mkdir_p(&crate::hosts::fs::parent(&at), 0o755);
        if machine.fs.symlink(&to, &at).is_ok() {
            text.push_str(&format!("Created symlink '{at}' \u{2192} '{to}'.\n"));
        }
    }
    text
}

fn disable(machine: &mut Machine, name: &str) -> String {
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
fn start(hosts: &Hosts, host: &Host, unit: &str) -> Result<(), String> {
    let mut machine = host.machine();
    if let Some((_, path)) = fragment(&machine.fs, unit) {
        let text = machine.fs.text(&path);
        machine.services.units.entry(unit.into()).or_default().loaded = Some(text);
    }
    if machine.services.active(unit) && unit != "nfs-server.service" {
        return Ok(());
    }
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
        Ok(()) => machine.services.set(unit, State::Active, 0),
        Err(line) => {
            machine.log(unit, line.clone());
            machine.services.set(unit, State::Failed, 1);
        }
    }
    started
}

fn stop(host: &Host, unit: &str) {
    let mut machine = host.machine();
    match unit {
        "haproxy.service" => machine.haproxy = None,
        "keepalived.service" => machine.keepalived = None,
        "nfs-server.service" => machine.exports.clear(),
        _ => {}
    }
    machine.services.set(unit, State::Inactive, 0);
}

fn reload(hosts: &Hosts, host: &Host, unit: &str) -> Result<(), String> {
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
            if !upgrade {
                enable(&mut machine, unit);
            }
            apt::policy_forbids(&machine.fs) || masked(&machine.fs, unit)
        };
        // kubelet's package starts nothing by itself on an upgrade; the others restart what ran.
        if policy || (upgrade && *unit == "kubelet.service") {
            continue;
        }
        if upgrade {
            if host.machine().services.active(unit) {
                stop(host, unit);
            } else {
                continue;
            }
        }
        // A service that does not start does not fail its package's installation: its log says why.
        let _ = start(hosts, host, unit);
    }
}

/// What a package's maintainer scripts do when it is removed.
pub fn removed(_hosts: &Hosts, host: &Arc<Host>, package: &str) {
    for unit in units_of(package) {
        stop(host, unit);
        disable(&mut host.machine(), unit);
    }
}

fn words_of(machine: &Machine, name: &str) -> (&'static str, &'static str) {
    let unit = fragment(&machine.fs, name).map_or_else(|| full(name), |(unit, _)| unit);
    match machine.services.get(&unit).state {
        State::Inactive => ("inactive", "dead"),
        State::Failed => ("failed", "failed"),
        State::Restarting => ("activating", "auto-restart"),
        State::Active if unit.ends_with(".timer") => ("active", "waiting"),
        State::Active if unit == "nfs-server.service" => ("active", "exited"),
        State::Active if unit.ends_with(".mount") => ("active", "mounted"),
        State::Active => ("active", "running"),
    }
}

fn systemctl<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let mut flags = Vec::new();
        let mut words = Vec::new();
        let mut properties = Vec::new();
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            match arg.as_str() {
                "-p" | "--property" => properties.extend(rest.next().map(String::as_str)),
                arg if arg.starts_with("--property=") => properties.push(&arg["--property=".len()..]),
                "-n" | "--lines" => {
                    rest.next();
                }
                arg if arg.starts_with('-') => flags.push(arg),
                arg => words.push(arg),
            }
        }
        let known = [
            "--now",
            "--value",
            "--quiet",
            "-q",
            "--no-pager",
            "-l",
            "--full",
            "--no-block",
            "--no-ask-password",
            "--plain",
        ];
        let Some((verb, names)) = words.split_first() else { return ctx.unknown("systemctl", args) };
        if flags.iter().any(|f| !known.contains(f)) {
            return ctx.unknown("systemctl", args);
        }
        let has = |f: &str| flags.contains(&f);
        let quiet = has("-q") || has("--quiet");
        let reads = matches!(
            *verb,
            "is-active" | "is-enabled" | "is-failed" | "show" | "status" | "cat" | "is-system-running"
        );
        if !reads && !ctx.root() {
            let name = names.first().copied().unwrap_or_default();
            return Output::fail(
                1,
                format!("Failed to {verb} {}: Interactive authentication required.", full(name)),
            );
        }
        match *verb {
            "is-active" | "is-failed" => is_active(ctx, verb, names, quiet),
            "is-enabled" => is_enabled(ctx, names, quiet),
            "is-system-running" => Output::ok("running\n"),
            "show" => show(ctx, args, names, &properties, has("--value")),
            "status" => status(ctx, names),
            "cat" => show_file(ctx, names),
            "daemon-reload" => {
                ctx.changes();
                let mut machine = ctx.machine();
                for unit in machine.services.units.keys().cloned().collect::<Vec<_>>() {
                    let text = fragment(&machine.fs, &unit).map(|(_, path)| machine.fs.text(&path));
                    if let Some(service) = machine.services.units.get_mut(&unit) {
                        service.loaded = text;
                    }
                }
                Output::quiet()
            }
            "enable"
            | "disable"
            | "mask"
            | "unmask"
            | "start"
            | "stop"
            | "restart"
            | "reload"
            | "try-restart"
            | "reload-or-restart"
            | "try-reload-or-restart"
            | "reset-failed" => {
                ctx.changes();
                let mut out = Output::quiet();
                for name in names {
                    let done = change(ctx, verb, name, has("--now")).await;
                    out.stderr.extend(done.stderr);
                    if done.exit != 0 {
                        out.exit = done.exit;
                    }
                }
                out
            }
            "reboot" => {
                ctx.changes();
                let (hosts, vmid) = (ctx.hosts.clone(), ctx.host.vmid);
                ctx.hosts.runtime().spawn(async move { hosts.reboot(vmid) });
                Output::quiet()
            }
            _ => ctx.unknown("systemctl", args),
        }
    }
    .boxed()
}

async fn change(ctx: &mut Ctx, verb: &str, name: &str, now: bool) -> Output {
    let unit = full(name);
    let known = fragment(&ctx.machine().fs, name);
    let (unit, _path) = match known {
        Some(found) => found,
        None if verb == "mask" || verb == "unmask" || verb == "reset-failed" => (unit, String::new()),
        None if verb == "disable" => {
            return Output::fail(1, format!("Failed to disable unit: Unit {unit} does not exist"));
        }
        None if verb == "enable" => {
            return Output::fail(1, format!("Failed to enable unit: Unit {unit} does not exist"));
        }
        None => return Output::fail(5, format!("Failed to {verb} {unit}: Unit {unit} not found.")),
    };
    let is_masked = masked(&ctx.machine().fs, &unit);
    if is_masked && matches!(verb, "start" | "restart" | "enable" | "reload-or-restart") {
        return Output::fail(1, format!("Failed to {verb} {unit}: Unit {unit} is masked."));
    }
    let hosts = ctx.hosts.clone();
    let host = ctx.host.clone();
    let active = host.machine().services.active(&unit);
    let restarting = host.machine().services.get(&unit).state == State::Restarting;
    ctx.takes(0.3);
    let done = match verb {
        "enable" => {
            let text = enable(&mut host.machine(), &unit);
            let started = if now { begin(ctx, &unit).await } else { Output::quiet() };
            return Output::quiet()
                .with_stderr(text)
                .with_stderr(String::from_utf8_lossy(&started.stderr))
                .exit(started.exit);
        }
        "disable" => {
            let text = disable(&mut host.machine(), &unit);
            if now {
                stop(&host, &unit);
            }
            return Output::quiet().with_stderr(text);
        }
        "mask" => {
            let at = format!("/etc/systemd/system/{unit}");
            let mut machine = host.machine();
            let _ = machine.fs.remove(&at);
            let _ = machine.fs.symlink("/dev/null", &at);
            drop(machine);
            if now {
                stop(&host, &unit);
            }
            return Output::quiet().with_stderr(format!("Created symlink '{at}' \u{2192} '/dev/null'.\n"));
        }
        "unmask" => {
            if is_masked {
                let _ = host.machine().fs.remove(&format!("/etc/systemd/system/{unit}"));
            }
            return Output::quiet();
        }
        "reset-failed" => {
            let mut machine = host.machine();
            if machine.services.get(&unit).state == State::Failed {
                machine.services.set(&unit, State::Inactive, 0);
            }
            return Output::quiet();
        }
        "start" => return begin(ctx, &unit).await,
        "stop" => {
            stop(&host, &unit);
            return Output::quiet();
        }
        "restart" => {
            stop(&host, &unit);
            return begin(ctx, &unit).await;
        }
        "try-restart" if active || restarting => {
            stop(&host, &unit);
            return begin(ctx, &unit).await;
        }
        "try-restart" => return Output::quiet(),
        "reload" if !active => return Output::fail(1, format!("{unit} is not active, cannot reload.")),
        "reload-or-restart" if !active => return begin(ctx, &unit).await,
        "try-reload-or-restart" if !active => return Output::quiet(),
        _ => reload(&hosts, &host, &unit),
    };
    match done {
        Ok(()) => Output::quiet(),
        Err(line) if line == "reload is not applicable" => Output::fail(
            1,
            format!("Failed to reload {unit}: Job type reload is not applicable for unit {unit}."),
        ),
        Err(_) => Output::fail(1, format!("Job for {unit} failed.\n{}", see(&unit))),
    }
}

fn see(unit: &str) -> String {
    format!("See \"systemctl status {unit}\" and \"journalctl -xeu {unit}\" for details.")
}

/// Starts a unit; a oneshot service of ours is run to its end.
async fn begin(ctx: &mut Ctx, unit: &str) -> Output {
    let text = {
        let machine = ctx.machine();
        fragment(&machine.fs, unit).map(|(_, path)| machine.fs.text(&path)).unwrap_or_default()
    };
    let ours = !text.contains("Description=lab\n");
    if ours && unit.ends_with(".service") && setting(&text, "Type").as_deref() == Some("oneshot") {
        let line = setting(&text, "ExecStart").unwrap_or_default();
        let Ok(argv) = words::split(line.trim_start_matches(['-', '+', '!', '@'])) else {
            return ctx.unknown("systemctl start", &[unit.to_string(), line]);
        };
        let user = std::mem::replace(&mut ctx.user, "root".into());
        let done = Box::pin(ctx.call(&argv)).await;
        ctx.user = user;
        let mut machine = ctx.machine();
        let state = if done.exit == 0 { State::Inactive } else { State::Failed };
        machine.services.set(unit, state, done.exit);
        for line in String::from_utf8_lossy(&done.stderr).lines() {
            machine.log(unit, line);
        }
        drop(machine);
        if done.exit != 0 {
            return Output::fail(
                1,
                format!(
                    "Job for {unit} failed because the control process exited with error code.\n{}",
                    see(unit)
                ),
            );
        }
        return Output::quiet();
    }
    match start(&ctx.hosts.clone(), &ctx.host.clone(), unit) {
        Ok(()) => Output::quiet(),
        Err(_) => Output::fail(
            1,
            format!(
                "Job for {unit} failed because the control process exited with error code.\n{}",
                see(unit)
            ),
        ),
    }
}

fn is_active(ctx: &mut Ctx, verb: &str, names: &[&str], quiet: bool) -> Output {
    let machine = ctx.machine();
    let mut text = String::new();
    let mut exit = if verb == "is-failed" { 1 } else { 3 };
    for name in names {
        let (word, _) = words_of(&machine, name);
        text.push_str(&format!("{word}\n"));
        match verb {
            "is-active" if word == "active" => exit = 0,
            "is-failed" if word == "failed" => exit = 0,
            // systemd 246 and later: 4, no such unit.
            "is-active" if exit != 0 && fragment(&machine.fs, name).is_none() => exit = 4,
            _ => {}
        }
    }
    Output { exit, stdout: if quiet { Vec::new() } else { text.into() }, stderr: Vec::new() }
}

fn is_enabled(ctx: &mut Ctx, names: &[&str], quiet: bool) -> Output {
    let machine = ctx.machine();
    let mut text = String::new();
    let mut exit = 1;
    for name in names {
        let word = unit_file_state(&machine.fs, name);
        text.push_str(&format!("{}\n", word.unwrap_or("not-found")));
        match word {
            Some("enabled" | "static") => exit = 0,
            None => exit = 4,
            Some(_) => {}
        }
    }
    Output { exit, stdout: if quiet { Vec::new() } else { text.into() }, stderr: Vec::new() }
}

const PROPERTIES: [&str; 13] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "UnitFileState",
    "FragmentPath",
    "Result",
    "NRestarts",
    "ExecMainStatus",
    "ExecMainCode",
    "MainPID",
    "NeedDaemonReload",
    "Type",
];

fn show(ctx: &mut Ctx, args: &[String], names: &[&str], properties: &[&str], value: bool) -> Output {
    let asked: Vec<&str> = properties.iter().flat_map(|p| p.split(',')).collect();
    let asked = if asked.is_empty() { PROPERTIES.to_vec() } else { asked };
    if asked.iter().any(|p| !PROPERTIES.contains(p)) {
        return ctx.unknown("systemctl", args);
    }
    let machine = ctx.machine();
    let mut blocks = Vec::new();
    for name in names {
        let found = fragment(&machine.fs, name);
        let unit = found.as_ref().map_or_else(|| full(name), |(unit, _)| unit.clone());
        let service = machine.services.get(&unit);
        let (active, sub) = words_of(&machine, name);
        let text = found.as_ref().map(|(_, path)| machine.fs.text(path));
        let mut block = String::new();
        // systemd prints in its own order, whatever the order asked for.
        for property in PROPERTIES.iter().filter(|p| asked.contains(p)) {
            let shown = match *property {
                "Id" => unit.clone(),
                "LoadState" if masked(&machine.fs, name) => "masked".into(),
                "LoadState" => if found.is_some() { "loaded" } else { "not-found" }.into(),
                "ActiveState" => active.into(),
                "SubState" => sub.into(),
                "UnitFileState" => unit_file_state(&machine.fs, name).unwrap_or_default().into(),
                "FragmentPath" => found.as_ref().map(|(_, p)| p.clone()).unwrap_or_default(),
                "Result" => if matches!(service.state, State::Failed | State::Restarting) {
                    "exit-code"
                } else {
                    "success"
                }
                .into(),
                "NRestarts" => service.restarts.to_string(),
                "ExecMainStatus" => service.status.to_string(),
                "ExecMainCode" => i32::from(service.state == State::Failed).to_string(),
                "MainPID" => service.pid.to_string(),
                "NeedDaemonReload" => {
                    if service.loaded.is_some() && service.loaded != text { "yes" } else { "no" }.into()
                }
                _ => text.as_deref().and_then(|t| setting(t, "Type")).unwrap_or_else(|| "simple".into()),
            };
            block.push_str(&if value { format!("{shown}\n") } else { format!("{property}={shown}\n") });
        }
        blocks.push(block);
    }
    Output::ok(blocks.join("\n"))
}

fn status(ctx: &mut Ctx, names: &[&str]) -> Output {
    let machine = ctx.machine();
    let mut text = String::new();
    let mut exit = 0;
    for name in names {
        let Some((unit, path)) = fragment(&machine.fs, name) else {
            return Output::fail(4, format!("Unit {} could not be found.", full(name)));
        };
        let (active, sub) = words_of(&machine, name);
        let enabled = unit_file_state(&machine.fs, name).unwrap_or_default();
        text.push_str(&format!("\u{25cf} {unit}\n     Loaded: loaded ({path}; {enabled}; preset: enabled)\n     Active: {active} ({sub})\n"));
        let lines = machine.log.get(&unit).map(Vec::as_slice).unwrap_or_default();
        for line in &lines[lines.len().saturating_sub(10)..] {
            text.push_str(&format!("{line}\n"));
        }
        if active != "active" {
            exit = 3;
        }
    }
    Output { exit, stdout: text.into(), stderr: Vec::new() }
}

fn show_file(ctx: &mut Ctx, names: &[&str]) -> Output {
    let machine = ctx.machine();
    let mut text = String::new();
    for name in names {
        let Some((_, path)) = fragment(&machine.fs, name) else {
            return Output::fail(1, format!("No files found for {}.", full(name)));
        };
        text.push_str(&format!("# {path}\n{}", machine.fs.text(&path)));
    }
    Output::ok(text)
}

fn journalctl(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut unit = None;
    let mut count = usize::MAX;
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-u" => unit = rest.next().map(|u| full(u)),
            "-n" => count = rest.next().and_then(|n| n.parse().ok()).unwrap_or(10),
            "-o" => {
                rest.next();
            }
            "--no-pager" | "-b" | "-q" | "--output=cat" => {}
            _ => return ctx.unknown("journalctl", args),
        }
    }
    let machine = ctx.machine();
    let lines: Vec<String> = unit.and_then(|u| machine.log.get(&u).cloned()).unwrap_or_default();
    let from = lines.len().saturating_sub(count);
    if lines.is_empty() {
        return Output::ok("-- No entries --\n");
    }
    Output::ok(lines[from..].iter().map(|l| format!("{l}\n")).collect::<String>())
}

impl Output {
    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, code: i32) -> Output {
        self.exit = code;
        self
    }
}
