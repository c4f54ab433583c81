//! systemctl and journalctl over the machine's units.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Ctx, Entry, Output, Run};
use crate::hosts::units::{
    State, daemon_reload, definition, disable, enable, fragment, full, masked, reload, setting, start, stop,
    unit_file_state,
};
use crate::hosts::{Machine, words};

/// The programs.
pub const TABLE: &[Entry] =
    &[("journalctl", "", Run::Quick(journalctl)), ("systemctl", "", Run::Slow(systemctl))];

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

pub(crate) fn systemctl<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
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
                daemon_reload(&mut ctx.machine());
                Output::quiet()
            }
            "enable"
            | "reenable"
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
        None if verb == "enable" || verb == "reenable" => {
            return Output::fail(1, format!("Failed to enable unit: Unit {unit} does not exist"));
        }
        None => return Output::fail(5, format!("Failed to {verb} {unit}: Unit {unit} not found.")),
    };
    let is_masked = masked(&ctx.machine().fs, &unit);
    if is_masked && matches!(verb, "start" | "restart" | "enable" | "reenable" | "reload-or-restart") {
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
            // systemctl reloads the manager after enable and its like.
            daemon_reload(&mut host.machine());
            let started = if now { begin(ctx, &unit).await } else { Output::quiet() };
            return Output::quiet()
                .with_stderr(text)
                .with_stderr(String::from_utf8_lossy(&started.stderr))
                .exit(started.exit);
        }
        // disable and enable in one: links to a unit that lay elsewhere are made anew.
        "reenable" => {
            let mut machine = host.machine();
            let text = disable(&mut machine, &unit) + &enable(&mut machine, &unit);
            daemon_reload(&mut machine);
            return Output::quiet().with_stderr(text);
        }
        "disable" => {
            let text = disable(&mut host.machine(), &unit);
            if now {
                stop(&hosts, &host, &unit);
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
                stop(&hosts, &host, &unit);
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
            stop(&hosts, &host, &unit);
            return Output::quiet();
        }
        "restart" => {
            stop(&hosts, &host, &unit);
            return begin(ctx, &unit).await;
        }
        "try-restart" if active || restarting => {
            stop(&hosts, &host, &unit);
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
                    let text = definition(&machine.fs, name);
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
