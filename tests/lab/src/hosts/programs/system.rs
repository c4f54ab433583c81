//! Programs that tell of the system and set the kernel.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Ctx, Entry, Output, Run, files, options};
use crate::hosts::machine::KERNEL;

/// The programs.
pub const TABLE: &[Entry] = &[
    ("true", "", Run::Quick(|_, _| Output::quiet())),
    ("false", "", Run::Quick(|_, _| Output::code(1))),
    ("date", "", Run::Quick(date)),
    ("echo", "", Run::Quick(|_, args| Output::ok(format!("{}\n", args.join(" "))))),
    ("getent", "", Run::Quick(getent)),
    ("gpg", "gpg", Run::Quick(gpg)),
    ("hostname", "", Run::Quick(hostname)),
    ("hostnamectl", "", Run::Quick(hostnamectl)),
    ("id", "", Run::Quick(id)),
    ("lsmod", "", Run::Quick(lsmod)),
    ("modprobe", "", Run::Quick(modprobe)),
    ("nproc", "", Run::Quick(nproc)),
    ("sysctl", "", Run::Quick(sysctl)),
    ("timedatectl", "", Run::Quick(timedatectl)),
    ("uname", "", Run::Quick(uname)),
    ("whoami", "", Run::Quick(|ctx, _| Output::ok(format!("{}\n", ctx.user)))),
    ("which", "", Run::Quick(which)),
];

fn date(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [format] if format == "+%s" => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            Output::ok(format!("{now}\n"))
        }
        _ => ctx.unknown("date", args),
    }
}

fn id(ctx: &mut Ctx, args: &[String]) -> Output {
    let user = ctx.machine().boot.user.clone();
    let (flags, names) = options(args);
    let asked = names.first().map_or_else(|| ctx.user.clone(), |n| n.to_string());
    let Some(name) = files::account(&asked, &user) else {
        return Output::fail(1, format!("id: \u{2018}{asked}\u{2019}: no such user"));
    };
    let number = files::number(&name);
    match flags.as_slice() {
        ["-u"] | ["-g"] => Output::ok(format!("{number}\n")),
        ["-un"] | ["-gn"] => Output::ok(format!("{name}\n")),
        [] => Output::ok(format!("uid={number}({name}) gid={number}({name}) groups={number}({name})\n")),
        _ => ctx.unknown("id", args),
    }
}

fn getent(ctx: &mut Ctx, args: &[String]) -> Output {
    let user = ctx.machine().boot.user.clone();
    let machine = ctx.machine();
    match args {
        [table, name] if table == "passwd" || table == "group" => {
            let system = ["haproxy", "prometheus", "_chrony"].contains(&name.as_str());
            let there = match name.as_str() {
                "prometheus" => machine.packages.provides("prometheus-node-exporter"),
                "_chrony" => machine.packages.provides("chrony"),
                name if system => machine.packages.provides(name),
                name => files::account(name, &user).is_some() && name.parse::<u32>().is_err(),
            };
            if !there {
                return Output::code(2);
            }
            let number = files::number(name);
            Output::ok(match table.as_str() {
                "passwd" => format!("{name}:x:{number}:{number}::/home/{name}:/bin/sh\n"),
                _ => format!("{name}:x:{number}:\n"),
            })
        }
        [table, name] if table == "hosts" || table == "ahostsv4" => {
            let text = machine.fs.text("/etc/hosts");
            let found = text.lines().find(|l| l.split_whitespace().skip(1).any(|w| w == name));
            found.map_or(Output::code(2), |line| Output::ok(format!("{line}\n")))
        }
        _ => {
            drop(machine);
            ctx.unknown("getent", args)
        }
    }
}

/// Only `gpg --dearmor [-o FILE]` and its kin, which turn a key's text into a keyring.
fn gpg(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut dearmor, mut out, mut from) = (false, None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--dearmor" => dearmor = true,
            "--yes" | "--batch" | "--no-tty" => {}
            "-o" | "--output" => out = rest.next().cloned(),
            arg if arg.starts_with('-') => return ctx.unknown("gpg", args),
            arg => from = Some(arg.to_string()),
        }
    }
    let (true, Some(out), Some(from)) = (dearmor, out, from) else { return ctx.unknown("gpg", args) };
    ctx.changes();
    let mut machine = ctx.machine();
    let Ok(key) = machine.fs.read(&from).map(<[u8]>::to_vec) else {
        return Output::fail(2, format!("gpg: can't open '{from}': No such file or directory"));
    };
    match machine.fs.write(&out, key) {
        Ok(()) => Output::quiet(),
        Err(e) => Output::fail(2, format!("gpg: can't create '{out}': {e}")),
    }
}

fn hostname(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [] => Output::ok(format!("{}\n", ctx.machine().fs.text("/etc/hostname").trim())),
        [flag] if flag == "-s" => Output::ok(format!("{}\n", ctx.machine().fs.text("/etc/hostname").trim())),
        [flag] if flag == "-I" => {
            let own = ctx.machine().boot.address;
            let held = ctx.hosts.held_by(ctx.host.vmid);
            let all = own.into_iter().chain(held.into_iter().map(|(a, _)| a));
            Output::ok(all.map(|a| format!("{a} ")).collect::<String>() + "\n")
        }
        _ => ctx.unknown("hostname", args),
    }
}

fn hostnamectl(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [verb, name] if verb == "set-hostname" || verb == "hostname" => {
            ctx.changes();
            ctx.machine().fs.put("/etc/hostname", format!("{name}\n"), 0o644, "root", "root");
            Output::quiet()
        }
        [verb] if verb == "hostname" => hostname(ctx, &[]),
        _ => ctx.unknown("hostnamectl", args),
    }
}

fn timedatectl(ctx: &mut Ctx, args: &[String]) -> Output {
    let active = ctx.machine().services.active("chrony");
    let yes = if active { "yes" } else { "no" };
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["show", "-p", "NTPSynchronized", "--value"] => Output::ok(format!("{yes}\n")),
        ["show", "-p", "NTPSynchronized"] => Output::ok(format!("NTPSynchronized={yes}\n")),
        ["show", "--property=NTPSynchronized", "--value"] => Output::ok(format!("{yes}\n")),
        _ => ctx.unknown("timedatectl", args),
    }
}

fn uname(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [flag] if flag == "-r" => Output::ok(format!("{KERNEL}\n")),
        [flag] if flag == "-m" => Output::ok("x86_64\n"),
        [] => Output::ok("Linux\n"),
        _ => ctx.unknown("uname", args),
    }
}

fn nproc(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [] => Output::ok(format!("{}\n", ctx.machine().boot.cores.max(1))),
        _ => ctx.unknown("nproc", args),
    }
}

fn which(ctx: &mut Ctx, args: &[String]) -> Output {
    let [name] = args else { return ctx.unknown("which", args) };
    let there = super::find(name)
        .is_some_and(|(_, package, _)| package.is_empty() || ctx.machine().packages.provides(package));
    if there { Output::ok(format!("/usr/bin/{name}\n")) } else { Output::code(1) }
}

fn modprobe(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, names) = options(args);
    if flags.iter().any(|f| !["-a", "-q"].contains(f)) {
        return ctx.unknown("modprobe", args);
    }
    if !ctx.root() {
        return Output::fail(1, "modprobe: ERROR: could not insert: Operation not permitted");
    }
    for name in names {
        let mut machine = ctx.machine();
        if machine.modules.contains(name) {
            continue;
        }
        if !machine.load_module(name) {
            return Output::fail(
                1,
                format!("modprobe: FATAL: Module {name} not found in directory /lib/modules/{KERNEL}"),
            );
        }
        drop(machine);
        ctx.changes();
    }
    Output::quiet()
}

fn lsmod(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() {
        return ctx.unknown("lsmod", args);
    }
    let machine = ctx.machine();
    let lines: String = machine.modules.iter().map(|m| format!("{m:<22} 32768  0\n")).collect();
    Output::ok(format!("Module                  Size  Used by\n{lines}"))
}

fn sysctl(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, rest) = options(args);
    match flags.as_slice() {
        ["--system"] | ["--system", "-q"] | ["-q", "--system"] => {
            if !ctx.root() {
                return Output::fail(1, "sysctl: permission denied");
            }
            ctx.changes();
            let told = ctx.machine().read_sysctl_files();
            let mut out = Output::quiet();
            for one in told {
                match one {
                    Ok((key, value)) => out.stdout.extend_from_slice(format!("{key} = {value}\n").as_bytes()),
                    Err(key) => {
                        out.stderr.extend_from_slice(missing(&key).as_bytes());
                        out.stderr.push(b'\n');
                    }
                }
            }
            out
        }
        ["-n"] | [] | ["-w"] | ["-e", "-n"] => {
            let mut out = Output::quiet();
            for word in rest {
                let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
                let mut machine = ctx.machine();
                let Some(slot) = machine.sysctl.get_mut(key) else {
                    out.exit = 255;
                    out.stderr.extend_from_slice(format!("{}\n", missing(key)).as_bytes());
                    continue;
                };
                let line = match value {
                    Some(_) if !ctx.root() => {
                        return Output::fail(255, format!("sysctl: permission denied on key \"{key}\""));
                    }
                    Some(value) => {
                        *slot = value.into();
                        drop(machine);
                        ctx.changes();
                        format!("{key} = {value}\n")
                    }
                    None if flags.contains(&"-n") => format!("{slot}\n"),
                    None => format!("{key} = {slot}\n"),
                };
                out.stdout.extend_from_slice(line.as_bytes());
            }
            out
        }
        _ => ctx.unknown("sysctl", args),
    }
}

fn missing(key: &str) -> String {
    format!("sysctl: cannot stat /proc/sys/{}: No such file or directory", key.replace('.', "/"))
}
