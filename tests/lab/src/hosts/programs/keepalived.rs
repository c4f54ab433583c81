//! The program `keepalived`: version and the check of a configuration.

use super::{Ctx, Entry, Output, Run};
use crate::hosts::vrrp;

/// The programs.
pub const TABLE: &[Entry] = &[("keepalived", "keepalived", Run::Quick(keepalived))];

const CONFIG_ERROR: i32 = 5;

fn keepalived(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut test, mut file) = (false, "/etc/keepalived/keepalived.conf".to_string());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--version" | "-v" => {
                return Output::quiet().with_stderr(
                    "Keepalived v2.3.3 (03/30,2025)\n\nCopyright(C) 2001-2025 Alexandre Cassen, <acassen@gmail.com>\n\n\
                     Distro: Debian GNU/Linux 13 (trixie)\n",
                );
            }
            "-t" | "--config-test" => test = true,
            "-l" | "--log-console" => {}
            "-f" | "--use-file" => file = rest.next().cloned().unwrap_or_default(),
            arg if arg.starts_with("--use-file=") => file = arg["--use-file=".len()..].into(),
            _ => return ctx.unknown("keepalived", args),
        }
    }
    if !test {
        return ctx.unknown("keepalived", args);
    }
    let machine = ctx.machine();
    let text = match machine.fs.read(&file) {
        _ if !machine.fs.may(&ctx.user, &file, 4) => {
            return Output::fail(CONFIG_ERROR, format!("Unable to open '{file}' (Permission denied)"));
        }
        Ok(content) => String::from_utf8_lossy(content).into_owned(),
        Err(_) => return Output::quiet().with_stderr(format!("Config files missing '{file}'.\n")),
    };
    let (_, report) = vrrp::parse(&file, &text, &machine);
    let lines: String = report.lines.iter().map(|l| format!("{l}\n")).collect();
    Output::code(if report.error { CONFIG_ERROR } else { 0 }).with_stderr(lines)
}
