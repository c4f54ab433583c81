//! The scripts of lb-render and vip-keepalive.

use std::net::Ipv4Addr;

use futures::FutureExt;
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};

use super::Script;
use crate::hosts::haproxy::{self, stats};
use crate::hosts::programs::{Ctx, Output, Run};
use crate::hosts::{units, vrrp};

/// The scripts.
pub const TABLE: &[Script] = &[
    ("lb-render-socket v1", false, Run::Quick(socket)),
    ("lb-render-files v1", false, Run::Quick(files)),
    ("lb-render-tidy v1", false, Run::Quick(tidy)),
    ("vip-keepalive-check v1", false, Run::Quick(check)),
    ("vip-keepalive-connect v1", false, Run::Slow(connect)),
    ("vip-keepalive-listen v1", false, Run::Quick(listen)),
    ("vip-keepalive-break v2", false, Run::Slow(break_it)),
    ("vip-keepalive-state v1", false, Run::Quick(state)),
];

/// `$1` the URL of HAProxy's monitor on this machine.
fn check(ctx: &mut Ctx, args: &[String]) -> Output {
    let parts = args.first().and_then(|url| url.strip_prefix("http://")?.split_once('/'));
    let place = parts.and_then(|(at, path)| Some((at.split_once(':')?, path)));
    let parsed = place.and_then(|((host, port), path)| {
        Some((host.parse::<Ipv4Addr>().ok()?, port.parse::<u16>().ok()?, format!("/{path}")))
    });
    let Some((address, port, path)) = parsed else { return ctx.unknown("vip-keepalive-check v1", args) };
    let machine = ctx.machine();
    let own = machine.boot.address;
    let answer = machine.haproxy.as_ref().and_then(|h| haproxy::answer(h, own, address, port, &path));
    Output::code(i32::from(answer.is_none_or(|(status, _)| status != 200)))
}

/// `$1` an address, `$2` a port.
fn connect<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let [host, port] = args else { return ctx.unknown("vip-keepalive-connect v1", args) };
        let at = port.parse().ok().and_then(|port| ctx.hosts.route(&ctx.host, host, port));
        let Some(at) = at else { return ctx.unknown("vip-keepalive-connect v1", args) };
        match tokio::net::TcpStream::connect(at).await {
            Ok(_) => Output::quiet(),
            Err(e) => Output::fail(1, format!("bash: connect: {e}")),
        }
    }
    .boxed()
}

/// `$1` the machine's address, `$2` seconds: the routers that send to everybody; those with unicast peers are not heard.
fn listen(ctx: &mut Ctx, args: &[String]) -> Output {
    let [own, seconds] = args else { return ctx.unknown("vip-keepalive-listen v1", args) };
    let (Ok(own), Ok(seconds)) = (own.parse::<Ipv4Addr>(), seconds.parse::<f64>()) else {
        return ctx.unknown("vip-keepalive-listen v1", args);
    };
    if !ctx.root() {
        return Output::fail(1, "a raw socket: Operation not permitted");
    }
    ctx.takes(seconds);
    let mut text = String::new();
    for host in ctx.hosts.all() {
        let machine = host.machine();
        let (Some(config), Some(address), true) = (&machine.keepalived, machine.boot.address, machine.up)
        else {
            continue;
        };
        for instance in config.instances.iter().filter(|i| i.peers.is_empty() && address != own) {
            text.push_str(&format!("{} {}\n", instance.source.unwrap_or(address), instance.router_id));
        }
    }
    Output::ok(text)
}

/// `$1` what is killed. systemd starts it again a moment later; by then another machine has the address. A link that
/// goes down and a reboot are not modelled.
fn break_it<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let unit = match args.first().map(String::as_str) {
            Some("haproxy") => "haproxy.service",
            Some("keepalived") => "keepalived.service",
            _ => return ctx.unknown("vip-keepalive-break v2", args),
        };
        if !ctx.machine().services.active(unit) {
            return Output::code(1);
        }
        ctx.changes();
        let (hosts, host) = (ctx.hosts.clone(), ctx.host.clone());
        units::stop(&hosts, &host, unit);
        hosts.settle();
        // Restart=always in the packages' units, or in a drop-in.
        let again = units::definition(&host.machine().fs, unit);
        if again.is_some_and(|text| text.lines().any(|l| l.trim() == "Restart=always")) {
            let _ = units::start(&hosts, &host, unit);
        }
        Output::quiet()
    }
    .boxed()
}

/// What keepalived writes of its instances on SIGUSR1, as far as it is read.
fn state(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() {
        return ctx.unknown("vip-keepalive-state v1", args);
    }
    if !ctx.root() {
        return Output::fail(1, "kill: Operation not permitted");
    }
    let (hosts, vmid) = (ctx.hosts.clone(), ctx.host.vmid);
    let told = vrrp::told(&hosts, vmid);
    match ctx.machine().services.active("keepalived.service") {
        true => Output::ok(told),
        false => Output::code(69),
    }
}

/// `$1` the path of the runtime socket, `$2` the command.
fn socket(ctx: &mut Ctx, args: &[String]) -> Output {
    let [path, command] = args else { return ctx.unknown("lb-render-socket v1", args) };
    let machine = ctx.machine();
    let Some(running) = machine.haproxy.clone() else {
        return Output::fail(1, format!("connect to {path}: No such file or directory"));
    };
    if running.config.socket.as_deref() != Some(path) {
        return Output::fail(1, format!("connect to {path}: No such file or directory"));
    }
    let answer = stats::command(&running, &machine.boot.name, command);
    drop(machine);
    if !command.starts_with("show ") {
        ctx.changes();
    }
    Output::ok(answer)
}

/// `$1` a folder: the files in it, with their digests.
fn files(ctx: &mut Ctx, args: &[String]) -> Output {
    let [folder] = args else { return ctx.unknown("lb-render-files v1", args) };
    let machine = ctx.machine();
    let mut text = String::new();
    for path in machine.fs.walk(folder) {
        let Ok(content) = machine.fs.read(&path) else { continue };
        if !machine.fs.may(&ctx.user, &path, 4) {
            return Output::fail(1, format!("sha256sum: {path}: Permission denied"));
        }
        let digest: String = Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect();
        text.push_str(&format!("{digest}  .{}\n", path.trim_start_matches(folder.as_str())));
    }
    Output::ok(text)
}

/// `$1` a folder, `$2` the entry of it that stays; empty: the folder goes as well.
fn tidy(ctx: &mut Ctx, args: &[String]) -> Output {
    let [folder, stays] = args else { return ctx.unknown("lb-render-tidy v1", args) };
    if !ctx.root() {
        return Output::fail(1, format!("rm: cannot remove '{folder}': Permission denied"));
    }
    let mut gone: Vec<String> = Vec::new();
    if let Ok(names) = ctx.machine().fs.list(folder) {
        let others = names.into_iter().filter(|name| name != stays && !name.starts_with('.'));
        gone.extend(others.map(|name| format!("{folder}/{name}")));
        gone.extend(stays.is_empty().then(|| folder.clone()));
    }
    for path in gone {
        if ctx.machine().fs.remove_all(&path) {
            ctx.changes();
        }
    }
    Output::quiet()
}
