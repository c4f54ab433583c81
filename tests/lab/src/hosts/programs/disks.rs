//! Disks, file systems, mounts and swap.

use serde_json::{Value, json};

use super::{Ctx, Entry, Output, Run, options};
use crate::hosts::Machine;
use crate::hosts::machine::{Format, Mount};
use crate::hosts::nfs;

/// The programs.
pub const TABLE: &[Entry] = &[
    ("blkid", "", Run::Quick(blkid)),
    ("exportfs", "nfs-kernel-server", Run::Quick(nfs::exportfs)),
    ("findmnt", "", Run::Quick(findmnt)),
    ("lsblk", "", Run::Quick(lsblk)),
    ("mkfs.ext4", "", Run::Quick(mkfs)),
    ("mkfs.xfs", "xfsprogs", Run::Quick(mkfs_xfs)),
    ("mount", "", Run::Quick(mount)),
    ("mountpoint", "", Run::Quick(mountpoint)),
    ("showmount", "nfs-common", Run::Quick(nfs::showmount)),
    ("swapoff", "", Run::Quick(swapoff)),
    ("swapon", "", Run::Quick(swapon)),
    ("umount", "", Run::Quick(umount)),
];

/// The devices: virtio SCSI disks in the order of the bus.
pub fn devices(machine: &Machine) -> Vec<(String, u64)> {
    let names = ('a'..='z').map(|c| format!("/dev/sd{c}"));
    names.zip(machine.boot.disks.iter().copied()).collect()
}

fn lsblk(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut json_asked, mut columns, mut only) = (false, String::new(), None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-o" | "--output" => columns = rest.next().cloned().unwrap_or_default(),
            flags if flags.starts_with('-') && !flags.starts_with("--") => {
                if !flags[1..].chars().all(|c| "Jbdnpfo".contains(c)) {
                    return ctx.unknown("lsblk", args);
                }
                json_asked |= flags.contains('J');
                if flags.ends_with('o') {
                    columns = rest.next().cloned().unwrap_or_default();
                }
            }
            "--json" | "--bytes" | "--nodeps" | "--paths" => json_asked |= arg == "--json",
            device if device.starts_with("/dev/") => only = Some(device.to_string()),
            _ => return ctx.unknown("lsblk", args),
        }
    }
    if !json_asked {
        return ctx.unknown("lsblk", args);
    }
    let paths = args
        .iter()
        .any(|a| a == "--paths" || (a.starts_with('-') && !a.starts_with("--") && a.contains('p')));
    let columns =
        if columns.is_empty() { "NAME,SIZE,TYPE,MOUNTPOINTS".to_string() } else { columns.to_uppercase() };
    let machine = ctx.machine();
    let mut all = Vec::new();
    for (index, (device, size)) in devices(&machine).into_iter().enumerate() {
        if only.as_ref().is_some_and(|o| *o != device) {
            continue;
        }
        let format = machine.formats.get(&device);
        let mounts: Vec<&str> =
            machine.mounts.iter().filter(|m| m.source == device).map(|m| m.target.as_str()).collect();
        let mut row = serde_json::Map::new();
        for column in columns.split(',') {
            let value = match column {
                "NAME" if paths => json!(device),
                "NAME" => json!(device.trim_start_matches("/dev/")),
                "PATH" => json!(device),
                "SIZE" => json!(size),
                "TYPE" => json!("disk"),
                "SERIAL" => json!(format!("drive-scsi{index}")),
                "FSTYPE" => json!(format.map(|f| &f.fstype)),
                "LABEL" => json!(format.map(|f| &f.label).filter(|l| !l.is_empty())),
                "UUID" => json!(format.map(|f| &f.uuid)),
                "MOUNTPOINT" => json!(mounts.first()),
                "MOUNTPOINTS" if mounts.is_empty() => json!([Value::Null]),
                "MOUNTPOINTS" => json!(mounts),
                "RO" => json!(false),
                _ => {
                    drop(machine);
                    return ctx.unknown("lsblk", args);
                }
            };
            row.insert(column.to_lowercase(), value);
        }
        if index == 0 && !args.iter().any(|a| a.starts_with('-') && a.contains('d')) {
            let name = if paths { "/dev/sda1" } else { "sda1" };
            row.insert("children".into(), json!([{"name": name, "type": "part", "fstype": "ext4", "mountpoint": "/", "mountpoints": ["/"], "size": size}]));
        }
        all.push(Value::Object(row));
    }
    if only.is_some() && all.is_empty() {
        return Output::fail(32, format!("lsblk: {}: not a block device", only.unwrap_or_default()));
    }
    Output::ok(format!("{}\n", json!({ "blockdevices": all })))
}

fn blkid(ctx: &mut Ctx, args: &[String]) -> Output {
    let mut rest = args.iter();
    let (mut tag, mut value, mut device) = (None, false, None);
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-s" => tag = rest.next().cloned(),
            "-o" => value = rest.next().is_some_and(|o| o == "value"),
            "-p" => {}
            dev if dev.starts_with("/dev/") => device = Some(dev.to_string()),
            _ => return ctx.unknown("blkid", args),
        }
    }
    let Some(device) = device else { return ctx.unknown("blkid", args) };
    let machine = ctx.machine();
    let Some(format) = machine.formats.get(&device) else { return Output::code(2) };
    match (tag.as_deref(), value) {
        (Some("UUID"), true) => Output::ok(format!("{}\n", format.uuid)),
        (Some("TYPE"), true) => Output::ok(format!("{}\n", format.fstype)),
        (Some("LABEL"), true) => Output::ok(format!("{}\n", format.label)),
        (None, false) => Output::ok(format!(
            "{device}: LABEL=\"{}\" UUID=\"{}\" TYPE=\"{}\"\n",
            format.label, format.uuid, format.fstype
        )),
        _ => {
            drop(machine);
            ctx.unknown("blkid", args)
        }
    }
}

fn mkfs_xfs(ctx: &mut Ctx, args: &[String]) -> Output {
    make(ctx, args, "xfs")
}

fn mkfs(ctx: &mut Ctx, args: &[String]) -> Output {
    make(ctx, args, "ext4")
}

fn make(ctx: &mut Ctx, args: &[String], fstype: &str) -> Output {
    let (mut label, mut device, mut force) = (String::new(), None, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-L" => label = rest.next().cloned().unwrap_or_default(),
            "-q" => {}
            "-F" | "-f" => force = true,
            "-m" | "-E" => {
                rest.next();
            }
            dev if dev.starts_with("/dev/") => device = Some(dev.to_string()),
            _ => return ctx.unknown("mkfs", args),
        }
    }
    let Some(device) = device else { return ctx.unknown("mkfs", args) };
    if !ctx.root() {
        return Output::fail(
            1,
            format!("mkfs.{fstype}: Permission denied while trying to determine filesystem size"),
        );
    }
    let mut machine = ctx.machine();
    let there = devices(&machine).iter().skip(1).any(|(d, _)| *d == device);
    if !there {
        return Output::fail(1, format!("The file {device} does not exist and no size was specified."));
    }
    if machine.mounts.iter().any(|m| m.source == device) {
        return Output::fail(1, format!("{device} is mounted; will not make a filesystem here!"));
    }
    if machine.formats.contains_key(&device) && !force {
        // mke2fs asks on a terminal; without one it gives up.
        return Output::fail(1, format!("{device} contains a {fstype} file system\nProceed anyway? (y,N)"));
    }
    let uuid = format!("{:08x}-0000-4000-8000-{:012x}", rand::random::<u32>(), rand::random::<u32>());
    machine.formats.insert(device, Format { fstype: fstype.into(), label, uuid });
    drop(machine);
    ctx.changes();
    Output::quiet()
}

fn findmnt(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut json_asked, mut target, mut columns, mut first) = (false, None, None, false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-J" | "--json" => json_asked = true,
            "-o" | "--output" => columns = rest.next().cloned(),
            "-no" | "-nro" => columns = rest.next().cloned(),
            "-n" | "-r" | "-rn" | "-nr" => {}
            "-M" | "--mountpoint" => target = rest.next().cloned(),
            "-T" | "--target" => {
                target = rest.next().cloned();
                first = true;
            }
            path if path.starts_with('/') => target = Some(path.into()),
            _ => return ctx.unknown("findmnt", args),
        }
    }
    let machine = ctx.machine();
    let root = Mount {
        source: "/dev/sda1".into(),
        target: "/".into(),
        fstype: "ext4".into(),
        options: "rw,relatime".into(),
    };
    let all: Vec<Mount> = std::iter::once(root).chain(machine.mounts.clone()).collect();
    let found: Vec<&Mount> = match &target {
        None => all.iter().collect(),
        Some(path) if first => {
            let above = |m: &&Mount| {
                path == &m.target || path.starts_with(&format!("{}/", m.target.trim_end_matches('/')))
            };
            all.iter().filter(above).max_by_key(|m| m.target.len()).into_iter().collect()
        }
        Some(path) => all.iter().filter(|m| m.target == *path).collect(),
    };
    if found.is_empty() {
        return Output::code(1);
    }
    let columns = columns.unwrap_or_else(|| "TARGET,SOURCE,FSTYPE,OPTIONS".into());
    let cell = |m: &Mount, column: &str| match column.to_uppercase().as_str() {
        "TARGET" => Some(m.target.clone()),
        "SOURCE" => Some(m.source.clone()),
        "FSTYPE" => Some(m.fstype.clone()),
        "OPTIONS" => Some(m.options.clone()),
        "UUID" => Some(machine.formats.get(&m.source).map(|f| f.uuid.clone()).unwrap_or_default()),
        _ => None,
    };
    if columns.split(',').any(|c| cell(found[0], c).is_none()) {
        drop(machine);
        return ctx.unknown("findmnt", args);
    }
    if json_asked {
        let rows: Vec<Value> = found
            .iter()
            .map(|m| {
                Value::Object(columns.split(',').map(|c| (c.to_lowercase(), json!(cell(m, c)))).collect())
            })
            .collect();
        return Output::ok(format!("{}\n", json!({ "filesystems": rows })));
    }
    let line =
        |m: &&Mount| columns.split(',').filter_map(|c| cell(m, c)).collect::<Vec<_>>().join(" ") + "\n";
    Output::ok(found.iter().map(line).collect::<String>())
}

fn mountpoint(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    let [path] = paths.as_slice() else { return ctx.unknown("mountpoint", args) };
    if flags.iter().any(|f| *f != "-q") {
        return ctx.unknown("mountpoint", args);
    }
    let mounted = *path == "/" || ctx.machine().mounts.iter().any(|m| m.target == *path);
    let text =
        if mounted { format!("{path} is a mountpoint\n") } else { format!("{path} is not a mountpoint\n") };
    Output {
        exit: if mounted { 0 } else { 32 },
        stdout: if flags.is_empty() { text.into() } else { Vec::new() },
        stderr: Vec::new(),
    }
}

fn mount(ctx: &mut Ctx, args: &[String]) -> Output {
    let (mut fstype, mut options, mut words, mut all) =
        (None, String::from("rw,relatime"), Vec::new(), false);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-t" => fstype = rest.next().cloned(),
            "-o" => options = rest.next().cloned().unwrap_or_default(),
            "-a" => all = true,
            arg if arg.starts_with('-') => return ctx.unknown("mount", args),
            arg => words.push(arg.to_string()),
        }
    }
    if !ctx.root() {
        return Output::fail(1, "mount: only root can do that");
    }
    ctx.changes();
    let from_fstab = |machine: &Machine| -> Vec<(String, String, String, String)> {
        let text = machine.fs.text("/etc/fstab");
        let rows = text
            .lines()
            .filter(|l| !l.trim_start().starts_with('#'))
            .map(|l| l.split_whitespace().collect::<Vec<_>>());
        rows.filter(|f| f.len() >= 4 && f[2] != "swap" && f[1] != "/")
            .map(|f| (f[0].to_string(), f[1].to_string(), f[2].to_string(), f[3].to_string()))
            .collect()
    };
    let wanted: Vec<(String, String, String, String)> = match words.as_slice() {
        [] if all => from_fstab(&ctx.machine()),
        [target] => from_fstab(&ctx.machine()).into_iter().filter(|(_, t, _, _)| t == target).collect(),
        [source, target] => vec![(source.clone(), target.clone(), fstype.unwrap_or_default(), options)],
        _ => return ctx.unknown("mount", args),
    };
    if wanted.is_empty() && !all {
        return Output::fail(1, format!("mount: {}: can't find in /etc/fstab.", words.join(" ")));
    }
    for (source, target, fstype, options) in wanted {
        let refused = mount_one(ctx, &source, &target, &fstype, &options);
        if refused.exit != 0 {
            return refused;
        }
    }
    Output::quiet()
}

fn mount_one(ctx: &Ctx, source: &str, target: &str, fstype: &str, options: &str) -> Output {
    if ctx.machine().mounts.iter().any(|m| m.target == target) {
        return Output::quiet();
    }
    if !ctx.machine().fs.is_dir(target) {
        return Output::fail(32, format!("mount: {target}: mount point does not exist."));
    }
    if fstype.starts_with("nfs") {
        return nfs::mount(ctx, source, target, options);
    }
    let mut machine = ctx.machine();
    let device = machine.device(source);
    let Some(format) = machine.formats.get(&device).cloned() else {
        return Output::fail(
            32,
            format!("mount: {target}: special device {source} does not exist or holds no file system."),
        );
    };
    machine.mounts.push(Mount {
        source: device,
        target: target.into(),
        fstype: format.fstype,
        options: options.into(),
    });
    Output::quiet()
}

fn umount(ctx: &mut Ctx, args: &[String]) -> Output {
    let (flags, paths) = options(args);
    if flags.iter().any(|f| !["-l", "-f"].contains(f)) {
        return ctx.unknown("umount", args);
    }
    for path in paths {
        let mut machine = ctx.machine();
        let before = machine.mounts.len();
        machine.mounts.retain(|m| m.target != path && m.source != path);
        if machine.mounts.len() == before {
            return Output::fail(32, format!("umount: {path}: not mounted."));
        }
        drop(machine);
        ctx.changes();
    }
    Output::quiet()
}

fn swapoff(ctx: &mut Ctx, args: &[String]) -> Output {
    if args != ["-a"] {
        return ctx.unknown("swapoff", args);
    }
    if !ctx.root() {
        return Output::fail(1, "swapoff: Not superuser.");
    }
    let was = std::mem::take(&mut ctx.machine().swap);
    if was {
        ctx.changes();
    }
    Output::quiet()
}

fn swapon(ctx: &mut Ctx, args: &[String]) -> Output {
    let known = args.iter().all(|a| a == "--show" || a == "--noheadings" || a.starts_with("--show="));
    if !known || args.is_empty() {
        return ctx.unknown("swapon", args);
    }
    let swap = ctx.machine().swap;
    Output::ok(if swap { "/swapfile file 2G 0B -2\n" } else { "" })
}
