//! `apt-get`: lists, installs and removals.

use super::apt::{Packages, need_root};
use super::{Ctx, Output};
use crate::hosts::fs::Fs;
use crate::hosts::packages;
use crate::hosts::{Machine, units};

pub(super) fn apt_get(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut words = Vec::new();
    let mut flags = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-o" => flags.push(rest.next().cloned().unwrap_or_default()),
            arg if arg.starts_with('-') => flags.push(arg.to_string()),
            arg => words.push(arg.to_string()),
        }
    }
    let known = [
        "-y",
        "-q",
        "-qq",
        "-qy",
        "-yq",
        "-yqq",
        "--yes",
        "--assume-yes",
        "--no-install-recommends",
        "--allow-downgrades",
        "--allow-change-held-packages",
        "--quiet",
        "--purge",
        "--autoremove",
    ];
    if let Some(_odd) =
        flags.iter().find(|f| f.starts_with('-') && !f.starts_with("-o") && !known.contains(&f.as_str()))
    {
        return ctx.unknown("apt-get", args);
    }
    let Some((verb, names)) = words.split_first() else { return ctx.unknown("apt-get", args) };
    if let Some(refused) = need_root(ctx) {
        return refused;
    }
    let has = |flag: &str| flags.iter().any(|f| f == flag);
    let yes =
        flags.iter().any(|f| ["-y", "-qy", "-yq", "-yqq", "--yes", "--assume-yes"].contains(&f.as_str()));
    ctx.changes();
    match verb.as_str() {
        "update" => update(ctx),
        "install" if yes => {
            let allow =
                Allow { downgrades: has("--allow-downgrades"), held: has("--allow-change-held-packages") };
            install(ctx, names, &allow)
        }
        "remove" | "purge" if yes => remove(ctx, names, verb == "purge" || has("--purge")),
        "install" | "remove" | "purge" => {
            Output { exit: 1, stdout: b"Do you want to continue? [Y/n] Abort.\n".into(), stderr: Vec::new() }
        }
        "clean" | "autoremove" => Output::quiet(),
        _ => ctx.unknown("apt-get", args),
    }
}

fn update(ctx: &mut Ctx) -> Output {
    ctx.takes(3.0);
    let mut machine = ctx.machine();
    let (found, errors) = packages::repositories(&machine.fs);
    machine.packages.indexed = found;
    if errors.is_empty() {
        return Output::ok("Reading package lists...\n");
    }
    Output { exit: 100, stdout: b"Reading package lists...\n".into(), stderr: errors.join("\n").into_bytes() }
        .with_stderr("\n")
}

struct Allow {
    downgrades: bool,
    held: bool,
}

fn install(ctx: &mut Ctx, names: &[String], allow: &Allow) -> Output {
    let mut wanted: Vec<(String, String)> = Vec::new();
    {
        let machine = ctx.machine();
        for name in names {
            if let Err(text) = choose(&machine.packages, name, &mut wanted) {
                return Output::fail(100, text);
            }
        }
        for (name, version) in &wanted {
            let Some(present) = machine.packages.version(name).filter(|v| v != version) else { continue };
            if machine.packages.held.contains(name) && !allow.held {
                return Output::fail(
                    100,
                    "E: Held packages were changed and -y was used without --allow-change-held-packages.",
                );
            }
            if packages::compare(version, present).is_lt() && !allow.downgrades {
                return Output::fail(
                    100,
                    "E: Packages were downgraded and -y was used without --allow-downgrades.",
                );
            }
        }
    }
    let mut text = String::new();
    for (name, version) in wanted {
        let before = ctx.machine().packages.version(&name).map(str::to_string);
        if before.as_deref() == Some(&version) {
            text.push_str(&format!("{name} is already the newest version ({version}).\n"));
            continue;
        }
        ctx.takes(if before.is_none() { 5.0 } else { 3.0 });
        {
            let mut machine = ctx.machine();
            machine.packages.leftover.remove(&name);
            machine.packages.installed.insert(name.clone(), version.clone());
            packages::unpack(&mut machine, &name, &version);
        }
        text.push_str(&format!("Setting up {name} ({version}) ...\n"));
        units::installed(&ctx.hosts.clone(), &ctx.host.clone(), &name, before.is_some());
    }
    Output::ok(text)
}

/// The packages to install for `name`, `name=version` or `name=version*`, with what they depend on.
fn choose(packages: &Packages, word: &str, wanted: &mut Vec<(String, String)>) -> Result<(), String> {
    let (name, version) = word.split_once('=').map_or((word, None), |(n, v)| (n, Some(v)));
    if wanted.iter().any(|(n, _)| n == name) {
        return Ok(());
    }
    let mut versions = packages.versions(name);
    versions.sort_by(|a, b| packages::compare(b.0, a.0));
    let present = packages.version(name);
    if versions.is_empty() {
        if present.is_some() && version.is_none_or(|v| Some(v) == present) {
            return Ok(());
        }
        return Err(format!("E: Unable to locate package {name}"));
    }
    let found = match version {
        None => versions.first(),
        Some(v) => versions.iter().find(|(known, _)| match v.strip_suffix('*') {
            Some(prefix) => known.starts_with(prefix),
            None => *known == v,
        }),
    };
    let Some((version, package)) = found else {
        return Err(format!("E: Version '{}' for '{name}' was not found", version.unwrap_or_default()));
    };
    for needed in package.depends {
        if packages.version(needed).is_none() {
            choose(packages, needed, wanted)?;
        }
    }
    wanted.push((name.into(), (*version).into()));
    Ok(())
}

fn remove(ctx: &mut Ctx, names: &[String], purge: bool) -> Output {
    let mut text = String::new();
    for name in names {
        let known = packages::CATALOGUE.iter().any(|p| p.name == name);
        let held = {
            let machine = ctx.machine();
            if !known && machine.packages.status(name).is_none() {
                return Output::fail(100, format!("E: Unable to locate package {name}"));
            }
            machine.packages.provides(name) && machine.packages.held.contains(name)
        };
        if held {
            return Output::fail(
                100,
                "E: Held packages were changed and -y was used without --allow-change-held-packages.",
            );
        }
        if !ctx.machine().packages.provides(name) && !purge {
            text.push_str(&format!("Package '{name}' is not installed, so not removed\n"));
            continue;
        }
        units::removed(&ctx.hosts.clone(), &ctx.host.clone(), name);
        ctx.takes(2.0);
        let mut machine = ctx.machine();
        let Machine { packages, fs, .. } = &mut *machine;
        if let Some(version) = packages.installed.remove(name) {
            packages.leftover.insert(name.clone(), version);
        }
        packages::erase(fs, name, purge);
        if purge {
            packages.leftover.remove(name);
        }
        text.push_str(&format!("Removing {name} ...\n"));
    }
    Output::ok(text)
}

/// Whether a package's services must not be started when it is installed.
pub fn policy_forbids(fs: &Fs) -> bool {
    fs.node("/usr/sbin/policy-rc.d").is_ok_and(|n| n.mode & 0o111 != 0)
        && fs.text("/usr/sbin/policy-rc.d").contains("exit 101")
}
