//! `just bench-failover`: the gap of many failovers. Figures are printed; the bound is that of the tests.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use hosts::rounds::percentile;
use hosts::{Blow, Rounds};
use laws::run;
use lb_render::LbRender;
use stage::Exit;
use vip_keepalive::VipKeepalive;

/// How many drills, as the recipe asks.
const DRILLS: &str = "KUBELINE_DRILLS";
/// How long a drill takes at most, in seconds, before the bench gives up.
const EACH: u64 = 12;

/// The folder of the programs that are timed, built for release.
const PROGRAMS: &str = "KUBELINE_BIN";
/// What an `apply` that has nothing to do may take on three machines: ms, and KiB of memory.
const BEARABLE: (u64, u64) = (500, 20 << 10);

/// What GNU time says of one run: ms, and KiB at the most.
fn timed(site: &hosts::Site, argv: &[&str]) -> (u64, u64) {
    let file = site.dir.join("time");
    let said = std::process::Command::new("/usr/bin/time")
        .args(["-f", "%e %M", "-o"])
        .arg(&file)
        .args(argv)
        .current_dir(&site.dir)
        .output()
        .unwrap();
    assert!(said.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&said.stderr));
    let told = std::fs::read_to_string(&file).unwrap();
    let (seconds, memory) = told.trim().split_once(' ').unwrap();
    ((seconds.parse::<f64>().unwrap() * 1000.0).round() as u64, memory.parse().unwrap())
}

#[test]
fn nothing_to_do() {
    let Some(programs) = std::env::var_os(PROGRAMS).map(std::path::PathBuf::from) else {
        println!("skipped: {PROGRAMS} does not say where the programs are (just bench-failover)");
        return;
    };
    if !std::path::Path::new("/usr/bin/time").exists() {
        println!("skipped: GNU time is not installed (apt-get install time)");
        return;
    }
    hosts::isolate::alone("nothing_to_do", 3, async |site| {
        let case = site.case(&site.spec());
        let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let said = run::<VipKeepalive>(&case, &["apply"], &[], &said.stdout, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        std::fs::write(site.dir.join("cluster.json"), &said.stdout).unwrap();
        for tool in ["lb-render", "vip-keepalive"] {
            let program = programs.join(tool).display().to_string();
            let argv = [program.as_str(), "-f", "cluster.json", "-o", "next.json"];
            let (times, memory): (Vec<u64>, Vec<u64>) = (0..20).map(|_| timed(&site, &argv)).unzip();
            assert_eq!(std::fs::read_to_string(site.dir.join("next.json")).unwrap(), said.stdout);
            let (half, most) = (percentile(&times, 50), percentile(&memory, 100));
            println!(
                "{tool}, nothing to do on three machines: p50 {half} ms, max {} ms, peak memory {most} KiB, n 20",
                percentile(&times, 100)
            );
            assert!(half <= BEARABLE.0 && most <= BEARABLE.1, "{tool}: {half} ms, {most} KiB");
        }
        ansible(&site).await;
    });
}

/// The same wish as a playbook: both files as they are, both services on.
const PLAYBOOK: &str = "\
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - ansible.builtin.copy: {src: 'files/{{ inventory_hostname }}/haproxy.cfg', dest: /etc/haproxy/haproxy.cfg}
    - ansible.builtin.copy: {src: 'files/{{ inventory_hostname }}/keepalived.conf', dest: /etc/keepalived/keepalived.conf}
    - ansible.builtin.systemd_service: {name: haproxy, state: started, enabled: true}
    - ansible.builtin.systemd_service: {name: keepalived, state: started, enabled: true}
";

/// What `ansible-playbook` takes for it, where it is installed: a figure to compare with, and no more.
async fn ansible(site: &hosts::Site) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join("ansible-playbook").exists()) {
        println!("skipped: ansible-playbook is not installed (pip install ansible-core)");
        return;
    }
    let (mut inventory, mut known) = (String::new(), String::new());
    for machine in &site.machines {
        machine.ok(&["apt-get", "install", "-y", "-q", "--no-install-recommends", "python3"]).await.unwrap();
        let (name, address) = (&machine.name, machine.address);
        let folder = site.dir.join("files").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["haproxy/haproxy.cfg", "keepalived/keepalived.conf"] {
            let to = folder.join(file.split('/').next_back().unwrap());
            std::fs::copy(machine.file(&format!("/etc/{file}")), to).unwrap();
        }
        inventory.push_str(&format!("{name} ansible_host={address} ansible_user=kubeline\n"));
        known.push_str(&format!("{address} {}\n", machine.host_key));
    }
    let write = |name: &str, text: &str| std::fs::write(site.dir.join(name), text).unwrap();
    write("inventory", &inventory);
    write("known", &known);
    write("site.yml", PLAYBOOK);
    let options = "-o UserKnownHostsFile=known -o StrictHostKeyChecking=yes";
    let argv = [
        "ansible-playbook",
        "-i",
        "inventory",
        "--private-key",
        "id",
        "--ssh-common-args",
        options,
        "site.yml",
    ];
    let (times, memory): (Vec<u64>, Vec<u64>) = (0..5).map(|_| timed(site, &argv)).unzip();
    println!(
        "ansible-playbook, both files and services as they are: p50 {} ms, max {} ms, peak memory {} KiB, n 5",
        percentile(&times, 50),
        percentile(&times, 100),
        percentile(&memory, 100)
    );
}

#[test]
fn failovers() {
    let asked = std::env::var(DRILLS).ok().and_then(|n| n.parse::<u64>().ok());
    let Some(drills) = asked else {
        println!("skipped: {DRILLS} does not say how many (just bench-failover)");
        return;
    };
    hosts::isolate::alone_for(60 + drills * EACH, "failovers", 3, async |site| {
        let case = site.case(&site.spec());
        let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let said = run::<VipKeepalive>(&case, &["apply"], &[], &said.stdout, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let rounds = Rounds::new(&site).await.unwrap();
        let blows = [Blow::Haproxy, Blow::Keepalived, Blow::Link];
        let mut all = Vec::new();
        for (n, blow) in blows.into_iter().enumerate() {
            let share = drills / 3 + u64::from((n as u64) < drills % 3);
            let mut gaps = Vec::new();
            for _ in 0..share {
                gaps.push(rounds.strike(blow).await.unwrap().noticed.gap_ms);
            }
            tell(&format!("{blow:?}"), &gaps);
            all.extend(gaps);
        }
        tell("all", &all);
        assert!(percentile(&all, 99) <= 1000, "p99 is above a second");
    });
}

fn tell(what: &str, gaps: &[u64]) {
    let of = |p| percentile(gaps, p);
    println!("{what}: p50 {} ms, p99 {} ms, max {} ms, n {}", of(50), of(99), of(100), gaps.len());
}
