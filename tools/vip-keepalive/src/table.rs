//! All load balancers at a glance.

use crate::seen::{MachineSeen, Seen};
use crate::want::Want;

const HEAD: [&str; 7] = ["MACHINE", "STATE", "PRIORITY", "ADDRESS", "HAPROXY", "UNIT", "VERSION"];

/// A line for each machine of the document: what its keepalived says, whether it has the address, what its check says.
pub fn table(want: &Want, seen: &Seen) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(want.balancers.iter().map(|balancer| match seen.machines.get(&balancer.name) {
        Some(machine) => row(&balancer.name, machine, want),
        None => {
            let mut row = [(); HEAD.len()].map(|()| "-".to_owned());
            row[0].clone_from(&balancer.name);
            row[1] = "unreachable".to_owned();
            row
        }
    }));
    let width = |n: usize| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(name: &str, machine: &MachineSeen, want: &Want) -> [String; 7] {
    let vrrp = machine.vrrp.as_ref();
    let priority = vrrp.map(|v| match v.effective == v.priority {
        true => v.priority.to_string(),
        false => format!("{} of {}", v.effective, v.priority),
    });
    let holds = machine.addresses.contains_key(&want.vip.address);
    let health = match machine.healthy {
        Some(true) => "serves",
        Some(false) => "silent",
        None => "-",
    };
    let unit = [machine.unit.active.as_str(), machine.unit.enabled.as_str()];
    let unit: Vec<&str> = unit.into_iter().filter(|word| !word.is_empty()).collect();
    let or_none = |text: Option<String>| text.filter(|t| !t.is_empty()).unwrap_or_else(|| "-".to_owned());
    [
        name.to_owned(),
        or_none(vrrp.map(|v| v.state.clone())),
        or_none(priority),
        if holds { want.vip.address.to_string() } else { "-".to_owned() },
        health.to_owned(),
        or_none(Some(unit.join(", "))),
        or_none(machine.version.clone()),
    ]
}
