//! The program `haproxy`: version and the check of a configuration.

use super::{Ctx, Entry, Output, Run};
use crate::hosts::haproxy::{VERSION, config};
use crate::hosts::machine::KERNEL;

/// The programs.
pub const TABLE: &[Entry] = &[("haproxy", "haproxy", Run::Quick(haproxy))];

fn haproxy(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut check, mut verbose, mut quiet, mut files) = (false, false, false, Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-v" => {
                return Output::ok(format!(
                    "HAProxy version {VERSION} 2026/05/20 - https://haproxy.org/\n\
                     Status: long-term supported branch - will stop receiving fixes around Q2 2029.\n\
                     Known bugs: http://www.haproxy.org/bugs/bugs-3.0.11.html\nRunning on: Linux {KERNEL} #1 SMP PREEMPT_DYNAMIC x86_64\n"
                ));
            }
            "-c" => check = true,
            "-V" => verbose = true,
            "-q" => quiet = true,
            "-f" => files.extend(rest.next().cloned()),
            _ => return ctx.unknown("haproxy", args),
        }
    }
    let ([file], true) = (files.as_slice(), check) else { return ctx.unknown("haproxy", args) };
    let machine = ctx.machine();
    let head = format!(
        "[NOTICE]   (1010) : haproxy version is {VERSION}\n[NOTICE]   (1010) : path to executable is /usr/sbin/haproxy\n"
    );
    let content = match machine.fs.read(file) {
        _ if !machine.fs.may(&ctx.user, file, 4) => Err("Permission denied".to_string()),
        Ok(content) => Ok(String::from_utf8_lossy(content).into_owned()),
        Err(e) => Err(e.to_string()),
    };
    let text = match content {
        Ok(text) => text,
        Err(e) => {
            return Output::fail(
                1,
                format!(
                    "{head}[ALERT]    (1010) : config : Cannot open configuration file/directory {file} : {e}"
                ),
            );
        }
    };
    let (config, report) = config::parse(file, &text, &machine.fs);
    let mut told = String::new();
    for line in &report.warnings {
        told.push_str(&format!("[WARNING]  (1010) : {line}\n"));
    }
    for line in &report.parsing {
        told.push_str(&format!("[ALERT]    (1010) : config : {line}\n"));
    }
    if !report.parsing.is_empty() {
        told.push_str(&format!(
            "[ALERT]    (1010) : config : Error(s) found in configuration file : {file}\n"
        ));
    }
    for line in &report.after {
        told.push_str(&format!("[ALERT]    (1010) : {line}\n"));
    }
    if report.fatal() {
        return Output::fail(
            1,
            format!("{head}{told}[ALERT]    (1010) : config : Fatal errors found in configuration."),
        );
    }
    if config.proxies.iter().all(|p| p.binds.is_empty()) {
        // haproxy -c exits 2 when there is nothing to listen on (management.txt, section 3).
        return Output {
            exit: 2,
            stdout: b"Configuration file has no error but will not start (no listener) => exit(2).\n".into(),
            stderr: Vec::new(),
        };
    }
    if !report.warnings.is_empty() {
        return Output {
            exit: 0,
            stdout: b"Warnings were found.\n".into(),
            stderr: format!("{head}{told}").into(),
        };
    }
    Output::ok(if verbose && !quiet { "Configuration file is valid\n" } else { "" })
}
