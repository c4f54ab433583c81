//! What is unhealthy although no step would change it.

use std::collections::BTreeMap;

use stage::Finding;

use crate::seen::Seen;

/// Servers that are down, backends without a server, versions that differ.
pub fn check(seen: &Seen) -> Vec<Finding> {
    let mut down: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let mut backends: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for (name, machine) in &seen.machines {
        for server in machine.running.iter().flat_map(|r| &r.servers) {
            *backends.entry((&server.backend, name)).or_default() |= server.is_up();
            if !server.is_up() {
                let check = if server.check.is_empty() { &server.status } else { &server.check };
                let place = (server.server.as_str(), server.backend.as_str());
                down.entry(place).or_default().push(format!("{name} ({check})"));
            }
        }
    }
    let mut findings: Vec<Finding> = down
        .into_iter()
        .map(|((server, backend), by)| {
            Finding::new(server, format!("{backend} is down as seen by {}", by.join(", ")))
        })
        .collect();
    for ((backend, name), _) in backends.into_iter().filter(|(_, up)| !up) {
        findings.push(Finding::new(name, format!("no server of {backend} is up: nothing answers there")));
    }
    findings.extend(seen.versions("haproxy", |machine| machine.version.as_deref()));
    findings
}
