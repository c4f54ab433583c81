//! Packages: dpkg, dpkg-query, apt-get, apt-cache and apt-mark.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ctx, Entry, Output, Run};
use crate::hosts::fs::Fs;
use crate::hosts::packages::{self, Package, Repo};
use crate::hosts::{Machine, units};

/// The programs.
pub const TABLE: &[Entry] = &[
    ("apt-cache", "", Run::Quick(apt_cache)),
    ("apt-get", "", Run::Quick(apt_get)),
    ("apt-mark", "", Run::Quick(apt_mark)),
    ("dpkg", "", Run::Quick(dpkg)),
    ("dpkg-query", "", Run::Quick(dpkg_query)),
];

/// What is installed, what is held, and which repositories' indexes are there.
#[derive(Clone, Debug, Default)]
pub struct Packages {
    installed: BTreeMap<String, String>,
    leftover: BTreeMap<String, String>,
    held: BTreeSet<String>,
    indexed: BTreeSet<Repo>,
}

impl Packages {
    /// The packages of a cloud image that anybody asks for; its package lists are empty.
    pub fn debian() -> Packages {
        let mut packages = Packages::default();
        for package in packages::CATALOGUE.iter().filter(|p| p.base) {
            packages.installed.insert(package.name.into(), package.newest().into());
        }
        packages
    }

    /// True when the package is installed.
    pub fn provides(&self, name: &str) -> bool {
        self.installed.contains_key(name)
    }

    /// The installed version.
    pub fn version(&self, name: &str) -> Option<&str> {
        self.installed.get(name).map(String::as_str)
    }

    /// True when apt keeps the package as it is.
    pub fn is_held(&self, name: &str) -> bool {
        self.held.contains(name)
    }

    fn versions(&self, name: &str) -> Vec<(&'static str, &'static Package)> {
        let known = packages::CATALOGUE.iter().filter(|p| p.name == name && self.indexed.contains(&p.repo));
        known.flat_map(|p| p.versions.iter().map(move |v| (*v, p))).collect()
    }

    fn status(&self, name: &str) -> Option<(&'static str, &str)> {
        if let Some(version) = self.installed.get(name) {
            let status = if self.held.contains(name) { "hold ok installed" } else { "install ok installed" };
            return Some((status, version));
        }
        self.leftover.get(name).map(|version| ("deinstall ok config-files", version.as_str()))
    }
}

fn need_root(ctx: &Ctx) -> Option<Output> {
    (!ctx.root()).then(|| {
        Output::fail(
            100,
            "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (13: Permission denied)\n\
             E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), are you root?",
        )
    })
}

fn dpkg(ctx: &mut Ctx, args: &[String]) -> Output {
    match args {
        [s, name] if s == "-s" || s == "--status" => {
            let machine = ctx.machine();
            match machine.packages.status(name) {
                Some((status, version)) => {
                    Output::ok(format!("Package: {name}\nStatus: {status}\nVersion: {version}\n"))
                }
                None => Output::fail(
                    1,
                    format!(
                        "dpkg-query: package '{name}' is not installed and no information is available\n\
                         Use dpkg --info (= dpkg-deb --info) to examine archive files."
                    ),
                ),
            }
        }
        [v, name] if v == "--verify" || v == "-V" => {
            let machine = ctx.machine();
            if machine.packages.status(name).is_none() {
                return Output::fail(1, format!("dpkg: package '{name}' is not installed"));
            }
            let mut text = String::new();
            for (_, path, pristine) in packages::CONFFILES.iter().filter(|(package, _, _)| package == name) {
                match machine.fs.read(path) {
                    Ok(content) if content == pristine.as_bytes() => {}
                    Ok(_) => text.push_str(&format!("??5?????? c {path}\n")),
                    Err(_) => text.push_str(&format!("missing   c {path}\n")),
                }
            }
            // It exits 0 whatever it found, as dpkg 1.21 does.
            Output::ok(text)
        }
        [p] if p == "--print-architecture" => Output::ok("amd64\n"),
        [c, a, op, b] if c == "--compare-versions" => {
            let order = packages::compare(a, b);
            let holds = match op.as_str() {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "eq" => order.is_eq(),
                "ne" => order.is_ne(),
                "ge" => order.is_ge(),
                "gt" => order.is_gt(),
                _ => return ctx.unknown("dpkg", args),
            };
            Output::code(i32::from(!holds))
        }
        _ => ctx.unknown("dpkg", args),
    }
}

fn dpkg_query(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut format, mut names, mut show) = ("${Package}\t${Version}\n".to_string(), Vec::new(), false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-W" | "--show" => show = true,
            "-f" => format = rest.next().cloned().unwrap_or_default(),
            arg if arg.starts_with("-f=") => format = arg[3..].into(),
            arg if arg.starts_with("-f") => format = arg[2..].into(),
            arg if arg.starts_with("--showformat=") => format = arg["--showformat=".len()..].into(),
            "--" => {}
            arg if arg.starts_with('-') => return ctx.unknown("dpkg-query", args),
            name => names.push(name),
        }
    }
    if !show {
        return ctx.unknown("dpkg-query", args);
    }
    let machine = ctx.machine();
    let mut out = Output::quiet();
    for name in names {
        let Some((status, version)) = machine.packages.status(name) else {
            out.exit = 1;
            out.stderr
                .extend_from_slice(format!("dpkg-query: no packages found matching {name}\n").as_bytes());
            continue;
        };
        let last = status.rsplit(' ').next().unwrap_or_default();
        let abbrev = match status.split(' ').next() {
            Some("hold") => "hi ",
            Some("install") => "ii ",
            _ => "rc ",
        };
        let line = format
            .replace("${Package}", name)
            .replace("${binary:Package}", name)
            .replace("${Version}", version)
            .replace("${Architecture}", "amd64")
            .replace("${db:Status-Status}", last)
            .replace("${db:Status-Want}", status.split(' ').next().unwrap_or_default())
            .replace("${db:Status-Abbrev}", abbrev)
            .replace("${Status}", status)
            .replace("\\n", "\n")
            .replace("\\t", "\t");
        if line.contains("${") {
            drop(machine);
            return ctx.unknown("dpkg-query", args);
        }
        out.stdout.extend_from_slice(line.as_bytes());
    }
    out
}

fn apt_mark(ctx: &mut Ctx, args: &[String]) -> Output {
    let Some((verb, names)) = args.split_first() else { return ctx.unknown("apt-mark", args) };
    match verb.as_str() {
        "showhold" => {
            let machine = ctx.machine();
            let held = machine.packages.held.iter().filter(|h| names.is_empty() || names.contains(h));
            Output::ok(held.map(|h| format!("{h}\n")).collect::<String>())
        }
        "hold" | "unhold" => {
            if let Some(refused) = need_root(ctx) {
                return refused;
            }
            let mut text = String::new();
            for name in names {
                let mut machine = ctx.machine();
                if machine.packages.status(name).is_none() && machine.packages.versions(name).is_empty() {
                    return Output::fail(
                        100,
                        format!("E: Unable to locate package {name}\nE: No packages found"),
                    );
                }
                let held = &mut machine.packages.held;
                let (changed, word) = match verb.as_str() {
                    "hold" => (held.insert(name.clone()), "set on hold."),
                    _ => (held.remove(name), "canceled hold on."),
                };
                drop(machine);
                if changed {
                    ctx.changes();
                    text.push_str(&match verb.as_str() {
                        "hold" => format!("{name} {word}\n"),
                        _ => format!("Canceled hold on {name}.\n"),
                    });
                } else if verb == "hold" {
                    text.push_str(&format!("{name} was already set on hold.\n"));
                } else {
                    text.push_str(&format!("{name} was already not on hold.\n"));
                }
            }
            Output::ok(text)
        }
        _ => ctx.unknown("apt-mark", args),
    }
}

fn apt_cache(ctx: &mut Ctx, args: &[String]) -> Output {
    let [verb, names @ ..] = args else { return ctx.unknown("apt-cache", args) };
    if verb != "policy" && verb != "madison" {
        return ctx.unknown("apt-cache", args);
    }
    let machine = ctx.machine();
    let mut text = String::new();
    for name in names {
        let mut versions = machine.packages.versions(name);
        versions.sort_by(|a, b| packages::compare(b.0, a.0));
        let installed = machine.packages.version(name);
        if verb == "madison" {
            for (version, package) in &versions {
                text.push_str(&format!("{name:>10} | {version} | {} Packages\n", package.repo.origin()));
            }
        } else if !versions.is_empty() || installed.is_some() {
            let candidate = versions.first().map(|v| v.0).or(installed).unwrap_or("(none)");
            text.push_str(&format!(
                "{name}:\n  Installed: {}\n  Candidate: {candidate}\n  Version table:\n",
                installed.unwrap_or("(none)")
            ));
            for (version, package) in &versions {
                let mark = if Some(*version) == installed { "***" } else { "   " };
                text.push_str(&format!(
                    " {mark} {version} 500\n        500 {} Packages\n",
                    package.repo.origin()
                ));
            }
        }
    }
    Output::ok(text)
}

fn apt_get(ctx: &mut Ctx, args: &[String]) -> Output {
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
