//! The scripts of lb-render.

use super::Script;
use crate::hosts::haproxy::stats;
use crate::hosts::programs::{Ctx, Output, Run};

/// The scripts.
pub const TABLE: &[Script] = &[("lb-render-socket v1", false, Run::Quick(socket))];

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
