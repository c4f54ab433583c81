//! Programs that tell of files and change none.

use sha2::{Digest, Sha256};

use super::files::number;
use super::{Ctx, Output, options};
use crate::hosts::fs::{Error, Kind, Node};

pub(super) fn cat(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if !flags.is_empty() {
        return ctx.unknown("cat", args);
    }
    if paths.is_empty() {
        return Output::ok(ctx.stdin.clone());
    }
    let machine = ctx.machine();
    let mut out = Output::quiet();
    for path in paths {
        let read = if machine.fs.may(&ctx.user, path, 4) {
            machine.fs.read(path)
        } else {
            machine.fs.node(path).and(Err(Error::Denied))
        };
        match read {
            Ok(content) => out.stdout.extend_from_slice(content),
            Err(e) => {
                out.exit = 1;
                out.stderr.extend_from_slice(format!("cat: {path}: {e}\n").as_bytes());
            }
        }
    }
    out
}

pub(super) fn test(ctx: &mut Ctx, args: &[String]) -> Output {
    crate::hosts::kubeadm::cluster::keep_serving(&ctx.hosts, &ctx.host);
    let machine = ctx.machine();
    let (negate, args) = match args {
        [bang, rest @ ..] if bang == "!" => (true, rest),
        args => (false, args),
    };
    let found = match args {
        [option, path] => {
            let node = machine.fs.node(path);
            match option.as_str() {
                "-e" => node.is_ok(),
                "-f" => matches!(node.map(|n| &n.kind), Ok(Kind::File(_))),
                "-d" => matches!(node.map(|n| &n.kind), Ok(Kind::Dir)),
                "-s" => matches!(node.map(|n| &n.kind), Ok(Kind::File(c)) if !c.is_empty()),
                "-x" => node.is_ok_and(|n| n.mode & 0o111 != 0),
                "-r" => node.is_ok() && machine.fs.may(&ctx.user, path, 4),
                "-w" => node.is_ok() && machine.fs.may(&ctx.user, path, 2),
                "-L" | "-h" => matches!(machine.fs.link_node(path).map(|n| &n.kind), Ok(Kind::Link(_))),
                _ => {
                    drop(machine);
                    return ctx.unknown("test", args);
                }
            }
        }
        [a, op, b] if op == "=" => a == b,
        [a, op, b] if op == "!=" => a != b,
        _ => {
            drop(machine);
            return ctx.unknown("test", args);
        }
    };
    Output::code(i32::from(found == negate))
}

pub(super) fn ls(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if flags.iter().any(|f| !["-1", "-A", "-1A", "-a"].contains(f)) {
        return ctx.unknown("ls", args);
    }
    let hidden = flags.iter().any(|f| f.contains(['A', 'a']));
    let machine = ctx.machine();
    let mut out = Output::quiet();
    for path in paths {
        match machine.fs.list(path) {
            Ok(names) => {
                for name in names.iter().filter(|n| hidden || !n.starts_with('.')) {
                    out.stdout.extend_from_slice(format!("{name}\n").as_bytes());
                }
            }
            Err(Error::NotDir) => out.stdout.extend_from_slice(format!("{path}\n").as_bytes()),
            Err(e) => {
                out.exit = 2;
                out.stderr.extend_from_slice(format!("ls: cannot access '{path}': {e}\n").as_bytes());
            }
        }
    }
    out
}

pub(super) fn readlink(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    let machine = ctx.machine();
    match (flags.as_slice(), paths.as_slice()) {
        (["-f"], [path]) => match machine.fs.resolve(path, true) {
            Ok(real) => Output::ok(format!("{real}\n")),
            Err(_) => Output::code(1),
        },
        ([], [path]) => match machine.fs.link_node(path).map(|n| &n.kind) {
            Ok(Kind::Link(to)) => Output::ok(format!("{to}\n")),
            _ => Output::code(1),
        },
        _ => {
            drop(machine);
            ctx.unknown("readlink", args)
        }
    }
}

pub(super) fn sha256sum(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if !flags.is_empty() {
        return ctx.unknown("sha256sum", args);
    }
    let hex = |content: &[u8]| Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect::<String>();
    if paths.is_empty() {
        return Output::ok(format!("{}  -\n", hex(&ctx.stdin)));
    }
    let machine = ctx.machine();
    let mut out = Output::quiet();
    for path in paths {
        match machine.fs.read(path) {
            Ok(content) if machine.fs.may(&ctx.user, path, 4) => {
                out.stdout.extend_from_slice(format!("{}  {path}\n", hex(content)).as_bytes());
            }
            other => {
                let e = other.err().unwrap_or(Error::Denied);
                out.exit = 1;
                out.stderr.extend_from_slice(format!("sha256sum: {path}: {e}\n").as_bytes());
            }
        }
    }
    out
}

pub(super) fn stat(ctx: &mut Ctx, args: &[String]) -> Output {
    let (follow, args_left) = match args {
        [l, rest @ ..] if l == "-L" => (true, rest),
        rest => (false, rest),
    };
    let (format, paths) = match args_left {
        [c, format, rest @ ..] if c == "-c" => (format.clone(), rest),
        [c, rest @ ..] if c.starts_with("--format=") => (c["--format=".len()..].to_string(), rest),
        _ => return ctx.unknown("stat", args),
    };
    let machine = ctx.machine();
    let mut out = Output::quiet();
    for path in paths.iter().filter(|p| *p != "--") {
        let node = if follow { machine.fs.node(path) } else { machine.fs.link_node(path) };
        match node {
            Ok(node) => match described(node, path, &format) {
                Some(line) => out.stdout.extend_from_slice(format!("{line}\n").as_bytes()),
                None => {
                    drop(machine);
                    return ctx.unknown("stat", args);
                }
            },
            Err(e) => {
                out.exit = 1;
                out.stderr.extend_from_slice(format!("stat: cannot statx '{path}': {e}\n").as_bytes());
            }
        }
    }
    out
}

fn described(node: &Node, path: &str, format: &str) -> Option<String> {
    let mut line = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            line.push(c);
            continue;
        }
        let size = match &node.kind {
            Kind::File(content) => content.len(),
            Kind::Dir => 4096,
            Kind::Link(to) => to.len(),
        };
        match chars.next()? {
            'a' => line.push_str(&format!("{:o}", node.mode)),
            'U' => line.push_str(&node.owner),
            'G' => line.push_str(&node.group),
            'u' => line.push_str(&number(&node.owner).to_string()),
            'g' => line.push_str(&number(&node.group).to_string()),
            's' => line.push_str(&size.to_string()),
            'n' => line.push_str(path),
            'F' => line.push_str(match &node.kind {
                Kind::File(content) if content.is_empty() => "regular empty file",
                Kind::File(_) => "regular file",
                Kind::Dir => "directory",
                Kind::Link(_) => "symbolic link",
            }),
            '%' => line.push('%'),
            _ => return None,
        }
    }
    Some(line)
}
