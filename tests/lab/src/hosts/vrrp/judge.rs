//! Whether a tracked script passes: the lab judges what it asks for, it does not run it.

use std::net::Ipv4Addr;
use std::sync::Mutex;

use super::config::Script;
use crate::Window;
use crate::hosts::{Hosts, Machine, haproxy};

/// True when the script would exit 0 on this machine now.
///
/// A script that the lab cannot judge fails, and the journal says so once.
pub fn passes(hosts: &Hosts, machine: &Machine, script: &Script) -> bool {
    let program = script.line.split_whitespace().next().unwrap_or_default();
    // An installed script is judged by its text, with its arguments before it.
    let text = match machine.fs.read(program) {
        Ok(content) => format!("{}\n{}", script.line, String::from_utf8_lossy(content)),
        Err(_) => script.line.clone(),
    };
    verdict(machine, &text).unwrap_or_else(|| {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let mut told = TOLD.lock().unwrap_or_else(|p| p.into_inner());
        let line = format!("{} {}", machine.boot.name, script.line);
        if !told.contains(&line) {
            hosts.world().journal.record_unknown(
                Window::Ssh,
                &machine.boot.name,
                &format!("keepalived's script {}", script.line),
            );
            told.push(line);
        }
        false
    })
}

fn verdict(machine: &Machine, text: &str) -> Option<bool> {
    // Comments do not count, but for the words of an URL after `http:`.
    let text: String =
        text.lines().filter(|l| !l.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let active = machine.services.active("haproxy");
    let urls: Vec<(Ipv4Addr, u16, String)> = urls(&text);
    if !urls.is_empty() {
        let asks = |(address, port, path): &(Ipv4Addr, u16, String)| {
            let answer = machine
                .haproxy
                .as_ref()
                .and_then(|h| haproxy::answer(h, machine.boot.address, *address, *port, path));
            answer.is_some_and(|(status, _)| status == 200)
        };
        return Some(active && urls.iter().all(asks));
    }
    if text.contains("haproxy") {
        return Some(active);
    }
    match text.trim() {
        "/usr/bin/true" => Some(true),
        "/usr/bin/false" => Some(false),
        _ => None,
    }
}

fn urls(text: &str) -> Vec<(Ipv4Addr, u16, String)> {
    let mut found = Vec::new();
    for part in text.split("http").skip(1) {
        let Some(rest) = part.strip_prefix("://").or_else(|| part.strip_prefix("s://")) else { continue };
        let url: &str = rest.split([' ', '"', '\'', '\n', '>', ';', ')']).next().unwrap_or_default();
        let (host, path) =
            url.split_once('/').map_or((url, String::from("/")), |(h, p)| (h, format!("/{p}")));
        let (host, port) = host.split_once(':').unwrap_or((host, "80"));
        let host = if host == "localhost" { "127.0.0.1" } else { host };
        if let (Ok(host), Ok(port)) = (host.parse(), port.parse()) {
            found.push((host, port, path));
        }
    }
    found
}
