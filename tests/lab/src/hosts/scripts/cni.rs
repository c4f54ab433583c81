//! The scripts of cni-install: what Calico leaves on a node, found and removed.

use super::Script;
use crate::hosts::programs::{Ctx, Output, Run};

/// The scripts.
pub const TABLE: &[Script] =
    &[("cni-look v1", false, Run::Quick(look)), ("cni-clean v1", false, Run::Quick(clean))];

// Links and chains of the packet filter are not modelled: the files alone.
const FILES: [&str; 4] = [
    "/etc/cni/net.d/10-calico.conflist",
    "/etc/cni/net.d/calico-kubeconfig",
    "/var/lib/calico",
    "/run/calico",
];

fn look(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("cni-look v1", args);
    }
    let machine = ctx.machine();
    let lines: String =
        FILES.iter().filter(|path| machine.fs.exists(path)).map(|path| format!("{path}\n")).collect();
    Output::ok(lines)
}

fn clean(ctx: &mut Ctx, args: &[String]) -> Output {
    if !args.is_empty() || !ctx.root() {
        return ctx.unknown("cni-clean v1", args);
    }
    ctx.changes();
    let mut machine = ctx.machine();
    for path in FILES {
        machine.fs.remove_all(path);
    }
    Output::quiet()
}
