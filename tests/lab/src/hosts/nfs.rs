//! The NFS server and its clients.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::machine::Mount;
use super::programs::{Ctx, Output};
use super::{Host, Machine};

/// One export to one client, in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The directory.
    pub path: String,
    /// `*`, an address or a network.
    pub client: String,
    /// The options as given.
    pub options: Vec<String>,
}

const KEYWORDS: [&str; 34] = [
    "rw",
    "ro",
    "sync",
    "async",
    "wdelay",
    "no_wdelay",
    "hide",
    "nohide",
    "subtree_check",
    "no_subtree_check",
    "secure",
    "insecure",
    "root_squash",
    "no_root_squash",
    "all_squash",
    "no_all_squash",
    "anonuid",
    "anongid",
    "sec",
    "fsid",
    "mp",
    "mountpoint",
    "crossmnt",
    "secure_locks",
    "insecure_locks",
    "auth_nlm",
    "no_auth_nlm",
    "acl",
    "no_acl",
    "pnfs",
    "no_pnfs",
    "security_label",
    "no_security_label",
    "xprtsec",
];

impl Export {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.options.iter().find_map(|o| o.strip_prefix(option)?.strip_prefix('='))
    }

    /// Whether an address is this export's client.
    pub fn admits(&self, address: Ipv4Addr) -> bool {
        match self.client.split_once('/') {
            _ if self.client == "*" => true,
            None => self.client.parse() == Ok(address),
            Some((network, prefix)) => {
                let (Ok(network), Ok(prefix)) = (network.parse::<Ipv4Addr>(), prefix.parse::<u32>()) else {
                    return false;
                };
                let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
                u32::from(network) & mask == u32::from(address) & mask
            }
        }
    }

    /// The options in the order and fullness that `exportfs -v` prints.
    fn shown(&self) -> String {
        let pick = |on: &str, off: &str| if self.has(on) { on.to_string() } else { off.to_string() };
        let mut all = vec![pick("async", "sync"), pick("no_wdelay", "wdelay"), pick("nohide", "hide")];
        all.extend(["crossmnt"].iter().filter(|o| self.has(o)).map(|o| o.to_string()));
        if !self.has("subtree_check") {
            all.push("no_subtree_check".into());
        }
        all.extend(["insecure_locks", "no_acl"].iter().filter(|o| self.has(o)).map(|o| o.to_string()));
        all.extend(self.value("fsid").map(|v| format!("fsid={v}")));
        if self.has("mp") || self.has("mountpoint") {
            all.push("mountpoint".into());
        }
        all.extend(self.value("anonuid").filter(|v| *v != "65534").map(|v| format!("anonuid={v}")));
        all.extend(self.value("anongid").filter(|v| *v != "65534").map(|v| format!("anongid={v}")));
        all.push(format!("sec={}", self.value("sec").unwrap_or("sys")));
        all.push(pick("rw", "ro"));
        all.extend(["insecure"].iter().filter(|o| self.has(o)).map(|o| o.to_string()));
        all.push(pick("no_root_squash", "root_squash"));
        all.push(pick("all_squash", "no_all_squash"));
        all.join(",")
    }
}

/// Reads the tables; gives what is exported, warnings, and the error that ended the reading.
fn read(machine: &Machine) -> (Vec<Export>, Vec<String>, bool) {
    let mut files = vec!["/etc/exports".to_string()];
    let names = machine.fs.list("/etc/exports.d").unwrap_or_default();
    files.extend(
        names
            .iter()
            .filter(|n| n.ends_with(".exports") && !n.starts_with('.'))
            .map(|n| format!("/etc/exports.d/{n}")),
    );
    let (mut found, mut told, mut bad) = (Vec::new(), Vec::new(), false);
    for file in files {
        for (index, line) in machine.fs.text(&file).lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut words = line.split_whitespace();
            let Some(path) = words.next() else { continue };
            let clients: Vec<&str> = words.collect();
            for client in if clients.is_empty() { vec!["*"] } else { clients } {
                let (name, options) =
                    client.split_once('(').map_or((client, ""), |(n, o)| (n, o.trim_end_matches(')')));
                let options: Vec<String> =
                    options.split(',').filter(|o| !o.is_empty()).map(String::from).collect();
                if let Some(odd) =
                    options.iter().find(|o| !KEYWORDS.contains(&o.split('=').next().unwrap_or_default()))
                {
                    told.push(format!("exportfs: {file}:{}: unknown keyword \"{odd}\"\n", index + 1));
                    return (found, told, true);
                }
                let client = if name.is_empty() { "*" } else { name };
                let export = Export { path: path.trim_matches('"').into(), client: client.into(), options };
                if !machine.fs.is_dir(&export.path) {
                    told.push(format!("exportfs: Failed to stat {}: No such file or directory", export.path));
                    bad = true;
                    continue;
                }
                let mounted = machine.mounts.iter().any(|m| m.target == export.path);
                if (export.has("mp") || export.has("mountpoint")) && !mounted {
                    continue;
                }
                found.push(export);
            }
        }
    }
    (found, told, bad)
}

/// Reads the export tables into force, as `exportfs -r` does. Gives its complaints, and whether they are errors.
pub fn export(machine: &mut Machine) -> (Vec<String>, bool) {
    let (found, told, bad) = read(machine);
    machine.exports = found;
    (told, bad)
}

/// The program `exportfs`.
pub fn exportfs(ctx: &mut Ctx, args: &[String]) -> Output {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if !ctx.root() {
        return Output::fail(
            1,
            "exportfs: could not open /var/lib/nfs/.etab.lock for locking: errno 13 (Permission denied)",
        );
    }
    match words.as_slice() {
        ["-ra" | "-ar" | "-r"] | ["-r", "-a"] => {
            let (told, bad) = {
                let mut machine = ctx.machine();
                let before = machine.exports.clone();
                let told = export(&mut machine);
                let changed = before != machine.exports;
                drop(machine);
                if changed {
                    ctx.changes();
                }
                told
            };
            let text: String = told.iter().map(|t| format!("{t}\n")).collect();
            Output::code(i32::from(bad)).with_stderr(text)
        }
        ["-v"] | ["-s"] => {
            let machine = ctx.machine();
            let mut text = String::new();
            for e in &machine.exports {
                let world = if words == ["-v"] && e.client == "*" { "<world>" } else { &e.client };
                let path = match words[0] {
                    "-s" => format!("{}  ", e.path),
                    _ if e.path.len() > 14 => format!("{}\n\t\t", e.path),
                    _ => format!("{:<14}\t", e.path),
                };
                text.push_str(&format!("{path}{world}({})\n", e.shown()));
            }
            Output::ok(text)
        }
        _ => ctx.unknown("exportfs", args),
    }
}

/// The program `showmount`.
pub fn showmount(ctx: &mut Ctx, args: &[String]) -> Output {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (["-e", server] | ["-e", "--no-headers", server]) = words.as_slice() else {
        return ctx.unknown("showmount", args);
    };
    let found = server.parse().ok().and_then(|a| ctx.hosts.by_address(a));
    let Some(host) = found.filter(|h| h.machine().services.active("nfs-server")) else {
        return Output::fail(1, "clnt_create: RPC: Unable to receive");
    };
    let lines: String = host.machine().exports.iter().map(|e| format!("{} {}\n", e.path, e.client)).collect();
    Output::ok(if words.len() == 2 { format!("Export list for {server}:\n{lines}") } else { lines })
}

/// Mounts an export of another machine.
pub fn mount(ctx: &Ctx, source: &str, target: &str, options: &str) -> Output {
    if !ctx.machine().packages.provides("nfs-common") {
        return Output::fail(
            32,
            format!(
                "mount: {target}: bad option; for several filesystems (e.g. nfs, cifs) you might need a /sbin/mount.<type> helper program."
            ),
        );
    }
    let Some((server, path)) = source.split_once(':') else {
        return Output::fail(32, format!("mount.nfs: remote share not in 'host:dir' format: {source}"));
    };
    let own = ctx.machine().boot.address;
    let Some(host) = server.parse().ok().and_then(|a| ctx.hosts.by_address(a)) else {
        return Output::fail(32, format!("mount.nfs: No route to host for {source} on {target}"));
    };
    if !host.machine().services.active("nfs-server") {
        return Output::fail(32, format!("mount.nfs: Connection refused for {source} on {target}"));
    }
    let export = own.and_then(|own| {
        let machine = host.machine();
        let inside = |e: &&Export| path == e.path || path.starts_with(&format!("{}/", e.path));
        machine.exports.iter().filter(inside).find(|e| e.admits(own)).cloned()
    });
    match export {
        None => Output::fail(32, format!("mount.nfs: access denied by server while mounting {source}")),
        Some(_) if !host.machine().fs.is_dir(path) => Output::fail(
            32,
            format!("mount.nfs: mounting {source} failed, reason given by server: No such file or directory"),
        ),
        Some(_) => {
            let mount = Mount {
                source: source.into(),
                target: target.into(),
                fstype: "nfs4".into(),
                options: options.into(),
            };
            ctx.machine().mounts.push(mount);
            Output::quiet()
        }
    }
}

/// A place on another machine that a path leads to over NFS.
pub struct Remote {
    /// The server.
    pub host: Arc<Host>,
    /// The path there.
    pub path: String,
    /// Who the user is there, after squashing.
    pub user: String,
    /// True when nothing may be written.
    pub read_only: bool,
}

/// Where a path leads when it lies below an NFS mount of this machine.
///
/// # Errors
/// The server no longer answers, or no longer exports it.
pub fn remote(ctx: &Ctx, path: &str) -> Option<Result<Remote, &'static str>> {
    let normal = super::fs::normal(path);
    let (mount, own) = {
        let machine = ctx.machine();
        let below = |m: &&Mount| {
            m.fstype.starts_with("nfs")
                && (normal == m.target || normal.starts_with(&format!("{}/", m.target)))
        };
        (machine.mounts.iter().find(below).cloned()?, machine.boot.address?)
    };
    let (server, exported) = mount.source.split_once(':')?;
    let Some(host) =
        ctx.hosts.by_address(server.parse().ok()?).filter(|h| h.machine().services.active("nfs-server"))
    else {
        return Some(Err("Input/output error"));
    };
    let inside = |e: &&Export| exported == e.path || exported.starts_with(&format!("{}/", e.path));
    let export = host.machine().exports.iter().filter(inside).find(|e| e.admits(own)).cloned();
    let Some(export) = export else { return Some(Err("Stale file handle")) };
    let squashed = export.has("all_squash") || (ctx.root() && !export.has("no_root_squash"));
    let anonymous = export
        .value("anonuid")
        .map_or_else(|| "nobody".to_string(), |id| if id == "65534" { "nobody".into() } else { id.into() });
    Some(Ok(Remote {
        host,
        path: format!("{exported}{}", &normal[mount.target.len()..]),
        user: if squashed { anonymous } else { ctx.user.clone() },
        read_only: !export.has("rw") || mount.options.split(',').any(|o| o == "ro"),
    }))
}
