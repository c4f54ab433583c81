//! The scripts of `remote`: read, write and remove a file, hold the host's lock.

use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Script;
use super::kadm::hex;
use crate::hosts::fs::Kind;
use crate::hosts::programs::{Ctx, Output, Run, files};

/// The scripts.
pub const TABLE: &[Script] = &[
    ("read v1", false, Run::Quick(read)),
    ("write v1", true, Run::Quick(write)),
    ("print v1", false, Run::Quick(print)),
    ("receive v1", true, Run::Quick(receive)),
    ("remove v1", false, Run::Quick(remove)),
    ("lock v1", false, Run::Slow(lock)),
];

const SAME: i32 = 80;
const ABSENT: i32 = 81;
const DIRECTORY: i32 = 82;
const CUT_SHORT: i32 = 83;
const TAKEN: i32 = 84;

fn read(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path, limit] = args else { return ctx.unknown("read v1", args) };
    let limit: usize = limit.parse().unwrap_or(usize::MAX);
    let machine = ctx.machine();
    match machine.fs.node(path).map(|n| &n.kind) {
        Err(_) => Output::code(ABSENT),
        Ok(Kind::Dir) => Output::code(DIRECTORY),
        Ok(_) if !machine.fs.may(&ctx.user, path, 4) => {
            Output::fail(1, format!("head: cannot open '{path}' for reading: Permission denied"))
        }
        Ok(Kind::File(content)) => Output::ok(&content[..content.len().min(limit)]),
        Ok(Kind::Link(_)) => Output::code(ABSENT),
    }
}

fn write(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path, mode, owner, group, length] = args else { return ctx.unknown("write v1", args) };
    let (Ok(mode), Ok(length)) = (u32::from_str_radix(mode, 8), length.parse::<usize>()) else {
        return ctx.unknown("write v1", args);
    };
    let dir = crate::hosts::fs::parent(path);
    let mut machine = ctx.machine();
    let user = machine.boot.user.clone();
    if matches!(machine.fs.link_node(path).map(|n| &n.kind), Ok(Kind::Dir)) {
        return Output::code(DIRECTORY);
    }
    if !ctx.root() && !machine.fs.may(&ctx.user, &dir, 3) {
        return Output::fail(
            1,
            format!("mktemp: failed to create file via template '{dir}/...': Permission denied"),
        );
    }
    if let Err(e) = machine.fs.mkdir_p(&dir, 0o755) {
        return Output::fail(1, format!("mkdir: cannot create directory '{dir}': {e}"));
    }
    if ctx.stdin.len() != length {
        return Output::code(CUT_SHORT);
    }
    let (Some(owner), Some(group)) = (files::account(owner, &user), files::account(group, &user)) else {
        return Output::fail(1, format!("chown: invalid user: '{owner}:{group}'"));
    };
    if let Ok(node) = machine.fs.link_node(path)
        && node.kind == Kind::File(ctx.stdin.clone())
        && (node.mode, &node.owner, &node.group) == (mode, &owner, &group)
    {
        return Output::code(SAME);
    }
    machine.fs.put(path, ctx.stdin.clone(), mode, &owner, &group);
    drop(machine);
    ctx.changes();
    Output::quiet()
}

/// `$1` the file.
fn print(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path] = args else { return ctx.unknown("print v1", args) };
    read(ctx, &[path.clone(), usize::MAX.to_string()])
}

/// `$1` the path, `$2` the mode, `$3` the length, `$4` the digest; the content comes on standard input.
fn receive(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path, mode, length, sha256] = args else { return ctx.unknown("receive v1", args) };
    let (Ok(mode), Ok(length)) = (u32::from_str_radix(mode, 8), length.parse::<usize>()) else {
        return ctx.unknown("receive v1", args);
    };
    if !ctx.root() {
        return ctx.unknown("receive v1 without root", args);
    }
    let mut machine = ctx.machine();
    if let Ok(node) = machine.fs.link_node(path) {
        let same = |content: &[u8]| (node.mode, content.len()) == (mode, length) && hex(content) == *sha256;
        match &node.kind {
            Kind::Dir => return Output::code(DIRECTORY),
            Kind::File(content) if same(content) => return Output::code(SAME),
            _ => {}
        }
    }
    if let Err(e) = machine.fs.mkdir_p(&crate::hosts::fs::parent(path), 0o700) {
        return Output::fail(1, format!("mkdir: cannot create directory: {e}"));
    }
    if ctx.stdin.len() != length || hex(&ctx.stdin) != *sha256 {
        return Output::code(CUT_SHORT);
    }
    machine.fs.put(path, ctx.stdin.clone(), mode, "root", "root");
    drop(machine);
    ctx.changes();
    Output::quiet()
}

fn remove(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path] = args else { return ctx.unknown("remove v1", args) };
    let outcome = {
        let mut machine = ctx.machine();
        match machine.fs.link_node(path).map(|n| &n.kind) {
            Err(_) => return Output::code(ABSENT),
            Ok(Kind::Dir) => return Output::code(DIRECTORY),
            Ok(_) if !machine.fs.may(&ctx.user, &crate::hosts::fs::parent(path), 3) => {
                return Output::fail(1, format!("rm: cannot remove '{path}': Permission denied"));
            }
            Ok(_) => {
                super::kadm::gone(&mut machine, path);
                machine.fs.remove(path)
            }
        }
    };
    ctx.changes();
    match outcome {
        Ok(()) => Output::quiet(),
        Err(e) => Output::fail(1, format!("rm: cannot remove '{path}': {e}")),
    }
}

/// Frees the lock however the call ends: input gone, machine off, connection cut.
struct Held(std::sync::Arc<crate::hosts::Host>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.machine().lock = None;
    }
}

fn lock<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let [holder] = args else { return ctx.unknown("lock v1", args) };
        // flock waits two seconds for a holder that is just ending; real time, as its end is real too.
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let other = {
                let mut machine = ctx.machine();
                match machine.lock.clone() {
                    Some(other) => other,
                    None => {
                        machine.lock = Some(holder.clone());
                        break;
                    }
                }
            };
            if Instant::now() >= deadline {
                return Output { exit: TAKEN, stdout: format!("{other}\n").into(), stderr: Vec::new() };
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _held = Held(ctx.host.clone());
        ctx.print("held\n");
        // The script gives up after 60 s without a byte; real time, as the client's keep-alive is real too.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(60), ctx.read()).await {}
        Output::quiet()
    }
    .boxed()
}
