//! The NFS server and its clients.

use super::Machine;
use super::programs::{Ctx, Output};

/// Reads the export tables into force, as `exportfs -r` does.
pub fn export(_machine: &mut Machine) {}

/// The program `exportfs`.
pub fn exportfs(ctx: &mut Ctx, args: &[String]) -> Output {
    ctx.unknown("exportfs", args)
}

/// The program `showmount`.
pub fn showmount(ctx: &mut Ctx, args: &[String]) -> Output {
    ctx.unknown("showmount", args)
}

/// Mounts an export of another machine.
pub fn mount(_ctx: &Ctx, source: &str, target: &str, _options: &str) -> Output {
    Output::fail(32, format!("mount.nfs: Connection refused for {source} on {target}"))
}
