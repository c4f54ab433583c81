//! The machines in the forms of other tools; pure. Names and addresses follow from the document alone, the rest from
//! an earlier run's status where the document has one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use cluster_doc::spec::Ssh;
use cluster_doc::status::MachineStatus;

use crate::args::Form;
use crate::want::{Design, Machine};

/// The text in this form.
pub(super) fn text(design: &Design, ssh: &Ssh, form: Form) -> String {
    let all: Vec<Row<'_>> =
        design.machines.iter().map(|m| Row { machine: m, status: design.hints.get(&m.name) }).collect();
    match form {
        Form::Table => table(&all),
        Form::Ansible => ansible(&all, ssh),
        Form::SshConfig => ssh_config(&all, ssh),
        Form::KnownHosts => known_hosts(&all, ssh),
        Form::Hosts => hosts(design, &all),
        Form::Mermaid => mermaid(&all),
        Form::Dot => dot(design, &all),
    }
}

struct Row<'r> {
    machine: &'r Machine,
    status: Option<&'r MachineStatus>,
}

impl Row<'_> {
    fn node(&self) -> String {
        self.status.and_then(|s| s.node.as_ref()).map_or("-".to_owned(), ToString::to_string)
    }

    fn vmid(&self) -> String {
        self.status.and_then(|s| s.vmid).map_or("-".to_owned(), |id| id.get().to_string())
    }
}

fn table(all: &[Row<'_>]) -> String {
    let head =
        ["NAME", "ROLE", "POOL", "KIND", "ADDRESS", "NODE", "ID", "CORES", "MEMORY"].map(str::to_owned);
    let row = |r: &Row<'_>| {
        let m = r.machine;
        let (cores, memory) = (m.cores.to_string(), format!("{}Mi", m.memory_mib));
        [
            m.name.clone(),
            m.role.to_string(),
            m.pool.clone(),
            m.kind.to_string(),
            m.address.to_string(),
            r.node(),
            r.vmid(),
            cores,
            memory,
        ]
    };
    let rows: Vec<[String; 9]> = std::iter::once(head).chain(all.iter().map(row)).collect();
    let width = |n: usize| rows.iter().map(|r| r[n].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, w)| format!("{cell:<w$}")).collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
    out
}

/// Groups by pool and by role, in letters that Ansible takes for a group's name.
fn ansible(all: &[Row<'_>], ssh: &Ssh) -> String {
    let mut groups: BTreeMap<String, Vec<&Row<'_>>> = BTreeMap::new();
    for row in all {
        for group in [format!("pool_{}", row.machine.pool), format!("role_{}", row.machine.role)] {
            groups.entry(group.replace('-', "_")).or_default().push(row);
        }
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut out = "all:\n  vars:\n".to_owned();
    let _ = writeln!(out, "    ansible_user: {}\n    ansible_port: {}", quoted(ssh.user.as_str()), ssh.port);
    if let Some(file) = &ssh.identity_file {
        let _ = writeln!(out, "    ansible_ssh_private_key_file: {}", quoted(&file.to_string()));
    }
    out.push_str("  hosts:\n");
    for row in all {
        let _ = writeln!(out, "    {}:\n      ansible_host: {}", row.machine.name, row.machine.address);
        if let Some(user) = row.machine.kind.account() {
            let _ = writeln!(out, "      ansible_user: {}", quoted(user));
        }
    }
    out.push_str("  children:\n");
    for (group, rows) in groups {
        let _ = writeln!(out, "    {group}:\n      hosts:");
        for row in rows {
            let _ = writeln!(out, "        {}: {{}}", row.machine.name);
        }
    }
    out
}

fn ssh_config(all: &[Row<'_>], ssh: &Ssh) -> String {
    let mut out = String::new();
    for row in all {
        let _ = writeln!(out, "Host {}\n  HostName {}", row.machine.name, row.machine.address);
        let user = row.machine.kind.account().unwrap_or(ssh.user.as_str());
        let _ = writeln!(out, "  User {user}\n  Port {}\n  HostKeyAlias {}", ssh.port, row.machine.name);
        if let Some(file) = &ssh.identity_file {
            let _ = writeln!(out, "  IdentityFile \"{file}\"");
        }
        if let Some(jump) = &ssh.jump {
            let _ = writeln!(out, "  ProxyJump {}@{}", jump.user, jump.host);
        }
        out.push('\n');
    }
    out.pop();
    out
}

/// By name, as `ssh-config` asks for them, and by address.
fn known_hosts(all: &[Row<'_>], ssh: &Ssh) -> String {
    let mut out = String::new();
    for row in all {
        let at = match ssh.port.get() {
            22 => row.machine.address.to_string(),
            port => format!("[{}]:{port}", row.machine.address),
        };
        for key in row.status.iter().flat_map(|s| &s.host_keys) {
            let _ = writeln!(out, "{},{at} {key}", row.machine.name);
        }
    }
    out
}

fn hosts(design: &Design, all: &[Row<'_>]) -> String {
    let mut out = String::new();
    for row in all {
        let (name, address) = (&row.machine.name, row.machine.address);
        let full = design.search_domain.as_ref().map(|d| format!("{name}.{d} ")).unwrap_or_default();
        let _ = writeln!(out, "{address} {full}{name}");
    }
    out
}

fn by_node<'r, 'm>(all: &'r [Row<'m>]) -> BTreeMap<String, Vec<&'r Row<'m>>> {
    let mut nodes: BTreeMap<String, Vec<&Row<'_>>> = BTreeMap::new();
    all.iter().for_each(|row| nodes.entry(row.node()).or_default().push(row));
    nodes
}

fn named(node: &str) -> &str {
    if node == "-" { "not made yet" } else { node }
}

fn mermaid(all: &[Row<'_>]) -> String {
    let mut out = "flowchart TB\n".to_owned();
    for (n, (node, rows)) in by_node(all).into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph n{n}[\"{}\"]", named(&node));
        for row in rows {
            let id = row.machine.name.replace('-', "_");
            let _ = writeln!(out, "    {id}[\"{}<br/>{}\"]", row.machine.name, row.machine.address);
        }
        out.push_str("  end\n");
    }
    out
}

fn dot(design: &Design, all: &[Row<'_>]) -> String {
    let mut out = format!("graph \"{}\" {{\n  node [shape=box];\n", design.cluster);
    for (n, (node, rows)) in by_node(all).into_iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{n} {{\n    label=\"{}\";", named(&node));
        for row in rows {
            let (name, address) = (&row.machine.name, row.machine.address);
            let _ = writeln!(out, "    \"{name}\" [label=\"{name}\\n{address}\"];");
        }
        out.push_str("  }\n");
    }
    out.push_str("}\n");
    out
}
