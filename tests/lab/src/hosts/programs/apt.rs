//! Packages: dpkg, dpkg-query, apt-get, apt-cache and apt-mark.

use std::collections::{BTreeMap, BTreeSet};

use super::apt_get::apt_get;
use super::{Ctx, Entry, Output, Run};
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
    pub(super) installed: BTreeMap<String, String>,
    /// Programs below /usr/local that no package brought, by the package that would, with their versions.
    pub local: BTreeMap<String, String>,
    pub(super) leftover: BTreeMap<String, String>,
    pub(super) held: BTreeSet<String>,
    pub(super) indexed: BTreeSet<Repo>,
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
        self.installed.contains_key(name) || self.local.contains_key(name)
    }

    /// The installed version.
    pub fn version(&self, name: &str) -> Option<&str> {
        // What lies in /usr/local comes first in the PATH.
        self.local.get(name).or_else(|| self.installed.get(name)).map(String::as_str)
    }

    /// The version of the package that dpkg knows of.
    pub fn package(&self, name: &str) -> Option<&str> {
        self.installed.get(name).map(String::as_str)
    }

    /// True when apt keeps the package as it is.
    pub fn is_held(&self, name: &str) -> bool {
        self.held.contains(name)
    }

    pub(super) fn versions(&self, name: &str) -> Vec<(&'static str, &'static Package)> {
        let known = packages::CATALOGUE.iter().filter(|p| p.name == name && self.indexed.contains(&p.repo));
        known.flat_map(|p| p.versions.iter().map(move |v| (*v, p))).collect()
    }

    pub(super) fn status(&self, name: &str) -> Option<(&'static str, &str)> {
        if let Some(version) = self.installed.get(name) {
            let status = if self.held.contains(name) { "hold ok installed" } else { "install ok installed" };
            return Some((status, version));
        }
        self.leftover.get(name).map(|version| ("deinstall ok config-files", version.as_str()))
    }
}

pub(super) fn need_root(ctx: &Ctx) -> Option<Output> {
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
        [r, names @ ..] if (r == "--remove" || r == "-r") && !names.is_empty() => dpkg_remove(ctx, names),
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

/// Removes packages and leaves their configuration; none of them when one is held or needed by another.
fn dpkg_remove(ctx: &mut Ctx, names: &[String]) -> Output {
    if !ctx.root() {
        return Output::fail(2, "dpkg: error: requested operation requires superuser privilege");
    }
    {
        let machine = ctx.machine();
        let packages = &machine.packages;
        if let Some(held) = names.iter().find(|n| packages.installed.contains_key(*n) && packages.is_held(n))
        {
            let text = format!(
                "dpkg: error processing package {held} (--remove):\n package {held} is on hold, not touching it.  Use --force-hold to override"
            );
            return Output::fail(1, text);
        }
        let needs = |p: &&packages::Package| {
            packages.installed.contains_key(p.name)
                && !names.iter().any(|n| n == p.name)
                && p.depends.iter().any(|d| names.iter().any(|n| n == d))
        };
        if let Some(other) = packages::CATALOGUE.iter().find(needs) {
            let text = format!(
                "dpkg: dependency problems prevent removal of {}:\n {} depends on it.",
                names.join(", "),
                other.name
            );
            return Output::fail(1, text);
        }
    }
    let mut out = Output::quiet();
    for name in names {
        if ctx.machine().packages.package(name).is_none() {
            let text = format!("dpkg: warning: ignoring request to remove {name} which isn't installed\n");
            out = out.with_stderr(text);
            continue;
        }
        ctx.changes();
        units::removed(&ctx.hosts.clone(), &ctx.host.clone(), name);
        ctx.takes(2.0);
        let mut machine = ctx.machine();
        let Machine { packages, fs, .. } = &mut *machine;
        if let Some(version) = packages.installed.remove(name) {
            packages.leftover.insert(name.clone(), version);
        }
        packages::erase(fs, name, false);
        out.stdout.extend_from_slice(format!("Removing {name} ...\n").as_bytes());
    }
    out
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
        "manual" => {
            if let Some(refused) = need_root(ctx) {
                return refused;
            }
            let mut text = String::new();
            for name in names {
                let known = ctx.machine().packages.package(name).is_some();
                if !known {
                    return Output::fail(
                        100,
                        format!("E: Unable to locate package {name}\nE: No packages found"),
                    );
                }
                text.push_str(&format!("{name} set to manually installed.\n"));
            }
            ctx.changes();
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
