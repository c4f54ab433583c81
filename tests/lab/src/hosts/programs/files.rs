//! Programs that read and change files.

use super::reading::{cat, ls, readlink, sha256sum, stat, test};
use super::{Ctx, Entry, Output, Run, options};
use crate::hosts::fs::{Kind, normal, parent};

/// The programs.
pub const TABLE: &[Entry] = &[
    ("cat", "", Run::Quick(cat)),
    ("chmod", "", Run::Quick(chmod)),
    ("chown", "", Run::Quick(chown)),
    ("install", "", Run::Quick(install)),
    ("ln", "", Run::Quick(ln)),
    ("ls", "", Run::Quick(ls)),
    ("mkdir", "", Run::Quick(mkdir)),
    ("mv", "", Run::Quick(mv)),
    ("readlink", "", Run::Quick(readlink)),
    ("rm", "", Run::Quick(rm)),
    ("rmdir", "", Run::Quick(rmdir)),
    ("sha256sum", "", Run::Quick(sha256sum)),
    ("stat", "", Run::Quick(stat)),
    ("tee", "", Run::Quick(tee)),
    ("test", "", Run::Quick(test)),
    ("touch", "", Run::Quick(touch)),
];

/// The name of a user or group given by name or number; `None` when the machine has none such.
pub fn account(name: &str, user: &str) -> Option<String> {
    match name {
        "0" => Some("root".into()),
        "1000" => Some(user.into()),
        "65534" => Some("nobody".into()),
        "root" | "nobody" | "nogroup" | "daemon" | "haproxy" | "systemd-network" | "_chrony"
        | "prometheus" | "adm" => Some(name.into()),
        name if name == user => Some(name.into()),
        // A number without an account is stored as it is.
        name if name.parse::<u32>().is_ok() => Some(name.into()),
        _ => None,
    }
}

/// The number of a user or group.
pub fn number(name: &str) -> u32 {
    match name {
        "root" => 0,
        "daemon" => 1,
        "haproxy" => 110,
        "_chrony" => 111,
        "prometheus" => 112,
        "adm" => 4,
        "nobody" | "nogroup" => 65534,
        other => other.parse().unwrap_or(1000),
    }
}

fn tee(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    let append = flags == ["-a"];
    if !flags.is_empty() && !append {
        return ctx.unknown("tee", args);
    }
    ctx.changes();
    for path in paths {
        let mut machine = ctx.machine();
        if !machine.fs.may_create(&ctx.user, path) {
            return Output::fail(1, format!("tee: {path}: Permission denied"));
        }
        let mut content =
            if append { machine.fs.read(path).unwrap_or_default().to_vec() } else { Vec::new() };
        content.extend_from_slice(&ctx.stdin);
        if let Err(e) = machine.fs.write(path, content) {
            return Output::fail(1, format!("tee: {path}: {e}"));
        }
    }
    Output::ok(ctx.stdin.clone())
}

fn mkdir(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut parents = false;
    let mut mode = 0o755;
    let mut paths = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-p" | "--parents" => parents = true,
            "--" => {}
            "-m" => match rest.next().and_then(|m| u32::from_str_radix(m, 8).ok()) {
                Some(given) => mode = given,
                None => return ctx.unknown("mkdir", args),
            },
            option if option.starts_with('-') => return ctx.unknown("mkdir", args),
            path => paths.push(path),
        }
    }
    for path in paths {
        let mut machine = ctx.machine();
        if machine.fs.is_dir(path) && parents {
            continue;
        }
        if machine.fs.exists(path) {
            return Output::fail(1, format!("mkdir: cannot create directory '{path}': File exists"));
        }
        if !parents && !machine.fs.is_dir(&parent(&normal(path))) {
            return Output::fail(
                1,
                format!("mkdir: cannot create directory '{path}': No such file or directory"),
            );
        }
        if !machine.fs.may_create(&ctx.user, path) {
            return Output::fail(1, format!("mkdir: cannot create directory '{path}': Permission denied"));
        }
        let made = machine.fs.mkdir_p(path, mode);
        let user = ctx.user.clone();
        let _ = machine.fs.change(path, None, Some(&user), Some(&user));
        drop(machine);
        ctx.changes();
        if let Err(e) = made {
            return Output::fail(1, format!("mkdir: cannot create directory '{path}': {e}"));
        }
    }
    Output::quiet()
}

fn install(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut directory, mut mode, mut owner, mut group) = (false, 0o755, ctx.user.clone(), ctx.user.clone());
    let mut paths = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match (arg.as_str(), arg.split_once('=')) {
            ("-d", _) => directory = true,
            ("-D" | "-T" | "--", _) => {}
            ("-m" | "-o" | "-g", _) | ("--mode" | "--owner" | "--group", _) => {
                let Some(value) = rest.next() else { return ctx.unknown("install", args) };
                match arg.trim_start_matches('-').chars().next() {
                    Some('m') => match u32::from_str_radix(value, 8) {
                        Ok(given) => mode = given,
                        Err(_) => return ctx.unknown("install", args),
                    },
                    Some('o') => owner.clone_from(value),
                    _ => group.clone_from(value),
                }
            }
            (option, _) if option.starts_with('-') => return ctx.unknown("install", args),
            (path, _) => paths.push(path),
        }
    }
    let user = ctx.machine().boot.user.clone();
    let (Some(owner), Some(group)) = (account(&owner, &user), account(&group, &user)) else {
        return Output::fail(1, format!("install: invalid user: '{owner}'"));
    };
    if !ctx.root() && (owner != ctx.user || paths.iter().any(|p| !ctx.machine().fs.may_create(&ctx.user, p)))
    {
        return Output::fail(1, "install: cannot change ownership: Operation not permitted");
    }
    if directory {
        for path in paths {
            let mut machine = ctx.machine();
            let before = machine.fs.node(path).ok().cloned();
            if let Err(e) = machine.fs.mkdir_p(path, mode) {
                return Output::fail(1, format!("install: cannot create directory '{path}': {e}"));
            }
            let _ = machine.fs.change(path, Some(mode), Some(&owner), Some(&group));
            let changed = machine.fs.node(path).ok() != before.as_ref();
            drop(machine);
            if changed {
                ctx.changes();
            }
        }
        return Output::quiet();
    }
    let [from, to] = paths.as_slice() else { return ctx.unknown("install", args) };
    let content = match *from {
        "/dev/stdin" => ctx.stdin.clone(),
        "/dev/null" => Vec::new(),
        from => match ctx.machine().fs.read(from) {
            Ok(content) => content.to_vec(),
            Err(e) => return Output::fail(1, format!("install: cannot stat '{from}': {e}")),
        },
    };
    ctx.changes();
    ctx.machine().fs.put(to, content, mode, &owner, &group);
    Output::quiet()
}

fn ln(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, rest) = options(args);
    let force = flags.iter().any(|f| f.contains('f'));
    let known = flags.iter().all(|f| f[1..].chars().all(|c| "sfnT".contains(c)))
        && flags.iter().any(|f| f.contains('s'));
    let [target, path] = rest.as_slice() else { return ctx.unknown("ln", args) };
    if !known {
        return ctx.unknown("ln", args);
    }
    let made = {
        let mut machine = ctx.machine();
        if !machine.fs.may_create(&ctx.user, path) {
            return Output::fail(
                1,
                format!("ln: failed to create symbolic link '{path}': Permission denied"),
            );
        }
        if force {
            let _ = machine.fs.remove(path);
        }
        machine.fs.symlink(target, path)
    };
    ctx.changes();
    match made {
        Ok(()) => Output::quiet(),
        Err(e) => Output::fail(1, format!("ln: failed to create symbolic link '{path}': {e}")),
    }
}

fn rm(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    let has = |c: char| flags.iter().any(|f| !f.starts_with("--") && f.contains(c));
    if flags.iter().any(|f| !f[1..].chars().all(|c| "rfRd".contains(c))) {
        return ctx.unknown("rm", args);
    }
    let (recursive, force) = (has('r') || has('R'), has('f'));
    for path in paths {
        let mut machine = ctx.machine();
        let there = machine.fs.link_node(path).map(|n| n.kind == Kind::Dir);
        match there {
            Err(_) if force => continue,
            Err(e) => return Output::fail(1, format!("rm: cannot remove '{path}': {e}")),
            Ok(true) if !recursive => {
                return Output::fail(1, format!("rm: cannot remove '{path}': Is a directory"));
            }
            Ok(_) => {}
        }
        if !machine.fs.may(&ctx.user, &parent(&normal(path)), 3) {
            return Output::fail(1, format!("rm: cannot remove '{path}': Permission denied"));
        }
        machine.fs.remove_all(path);
        crate::hosts::scripts::kadm::gone(&mut machine, path);
        drop(machine);
        ctx.changes();
    }
    Output::quiet()
}

fn rmdir(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if !flags.is_empty() {
        return ctx.unknown("rmdir", args);
    }
    for path in paths {
        let mut machine = ctx.machine();
        match machine.fs.list(path) {
            Err(e) => return Output::fail(1, format!("rmdir: failed to remove '{path}': {e}")),
            Ok(names) if !names.is_empty() => {
                return Output::fail(1, format!("rmdir: failed to remove '{path}': Directory not empty"));
            }
            Ok(_) => machine.fs.remove_all(path),
        };
        drop(machine);
        ctx.changes();
    }
    Output::quiet()
}

fn mv(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, rest) = options(args);
    let [from, to] = rest.as_slice() else { return ctx.unknown("mv", args) };
    if flags.iter().any(|f| !f[1..].chars().all(|c| "fTn".contains(c))) {
        return ctx.unknown("mv", args);
    }
    let moved = {
        let mut machine = ctx.machine();
        let user = &ctx.user;
        if !machine.fs.may(user, &parent(&normal(from)), 3) || !machine.fs.may(user, &parent(&normal(to)), 3)
        {
            return Output::fail(1, format!("mv: cannot move '{from}' to '{to}': Permission denied"));
        }
        machine.fs.rename(from, to)
    };
    ctx.changes();
    match moved {
        Ok(()) => Output::quiet(),
        Err(e) => Output::fail(1, format!("mv: cannot stat '{from}': {e}")),
    }
}

fn chmod(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, rest) = options(args);
    let (Some((mode, paths)), true) = (rest.split_first(), flags.is_empty()) else {
        return ctx.unknown("chmod", args);
    };
    let Ok(mode) = u32::from_str_radix(mode, 8) else { return ctx.unknown("chmod", args) };
    ctx.changes();
    change_all(ctx, "chmod", paths, |_| (Some(mode), None, None), false)
}

fn chown(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, rest) = options(args);
    let Some((owner, paths)) = rest.split_first() else { return ctx.unknown("chown", args) };
    if flags.iter().any(|f| *f != "-R") {
        return ctx.unknown("chown", args);
    }
    let user = ctx.machine().boot.user.clone();
    let (name, group) = owner.split_once(':').map_or((*owner, None), |(o, g)| (o, Some(g)));
    let name = if name.is_empty() { None } else { Some(account(name, &user)) };
    let group = group.map(|g| account(g, &user));
    if name == Some(None) || group == Some(None) {
        return Output::fail(1, format!("chown: invalid user: '{owner}'"));
    }
    ctx.changes();
    let (name, group) = (name.flatten(), group.flatten());
    change_all(ctx, "chown", paths, |_| (None, name.clone(), group.clone()), !flags.is_empty())
}

type Change = (Option<u32>, Option<String>, Option<String>);

fn change_all(
    ctx: &mut Ctx,
    program: &str,
    paths: &[&str],
    to: impl Fn(&str) -> Change,
    deep: bool,
) -> Output {
    for path in paths {
        let mut machine = ctx.machine();
        if machine.fs.node(path).is_ok_and(|n| !ctx.root() && n.owner != ctx.user) {
            return Output::fail(1, format!("{program}: changing '{path}': Operation not permitted"));
        }
        let all = if deep { machine.fs.walk(path) } else { vec![path.to_string()] };
        for path in all {
            let (mode, owner, group) = to(&path);
            if let Err(e) = machine.fs.change(&path, mode, owner.as_deref(), group.as_deref()) {
                return Output::fail(1, format!("{program}: cannot access '{path}': {e}"));
            }
        }
    }
    Output::quiet()
}

fn touch(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if !flags.is_empty() {
        return ctx.unknown("touch", args);
    }
    ctx.changes();
    for path in paths {
        let mut machine = ctx.machine();
        if !machine.fs.may_create(&ctx.user, path) {
            return Output::fail(1, format!("touch: cannot touch '{path}': Permission denied"));
        }
        if machine.fs.exists(path) {
            continue;
        }
        let user = ctx.user.clone();
        if let Err(e) = machine.fs.write(path, Vec::new()) {
            return Output::fail(1, format!("touch: cannot touch '{path}': {e}"));
        }
        let _ = machine.fs.change(path, None, Some(&user), Some(&user));
    }
    Output::quiet()
}
