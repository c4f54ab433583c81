//! Golden cases: a document and what is there, to files and plans; and the real `keepalived -t` on the files.
//!
//! A case is a folder below `tests/golden`: `cluster.json`, perhaps `seen.json`; expected are `plan.txt` and
//! `check.txt` for a `seen.json`, and the folder `render`. `BLESS=1` writes what is; review it with
//! `git diff`.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cluster_doc::Document;
use stage::{Site, Tool as _};
use vip_keepalive::config::{Config, ENDED, HAPROXY_UNIT_TEXT, SCRIPT, SCRIPT_TEXT};
use vip_keepalive::{Seen, VipKeepalive, Want};

fn cases() -> Vec<PathBuf> {
    laws::golden::cases(env!("CARGO_MANIFEST_DIR"))
}

fn want(case: &Path) -> Want {
    let site = Site::new(case.into(), Arc::new(|_| None));
    let doc = Document::parse(std::fs::read(case.join("cluster.json")).unwrap()).unwrap();
    vip_keepalive::want::want(&doc, &site).unwrap()
}

/// Seen data may say `wanted` for a file that is wanted, `A 1 -> 2` for the wanted one with `A 1` turned into
/// `A 2`, and `unicast_peer` for one that knows a peer more.
fn seen(case: &Path, want: &Want) -> Option<Seen> {
    let text = std::fs::read(case.join("seen.json")).ok()?;
    let mut seen: Seen = serde_json::from_slice(&text).unwrap();
    for (name, machine) in &mut seen.machines {
        let Ok(balancer) = want.balancer(name) else { continue };
        let due = balancer.instance.text("eth0").unwrap();
        let config = machine.config.take().map(|said| match (said.as_str(), said.split_once(" -> ")) {
            ("wanted", _) => due.clone(),
            ("unicast_peer", _) => due.replace("unicast_peer {\n", "unicast_peer {\n        10.30.0.13\n"),
            (_, Some((is, other))) => {
                let word = is.split(' ').next().unwrap();
                due.replace(is, &format!("{word} {other}"))
            }
            _ => said,
        });
        machine.config = config;
        let unit = balancer.instance.unit("eth0").unwrap();
        machine.haproxy_unit =
            machine.haproxy_unit.take().map(|said| said.replace("wanted", HAPROXY_UNIT_TEXT));
        machine.keepalived_unit = machine.keepalived_unit.take().map(|said| said.replace("wanted", &unit));
        machine.script = machine.script.take().map(|said| said.replace("wanted", SCRIPT_TEXT));
    }
    Some(seen)
}

#[test]
fn cases_give_what_is_expected() {
    let mut wrong = Vec::new();
    for case in cases() {
        let want = want(&case);
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        if !case.join("seen.json").exists() || case.ends_with("pools") {
            for file in VipKeepalive::render(&want).unwrap().unwrap() {
                all.insert(format!("render/{}", file.path), String::from_utf8(file.content).unwrap());
            }
        }
        if let Some(seen) = seen(&case, &want) {
            let plan = match case.ends_with("teardown") {
                true => VipKeepalive::teardown(&want, &seen),
                false => VipKeepalive::plan(&want, &seen),
            };
            all.insert("plan.txt".into(), plan.text("vip-keepalive"));
            let found = VipKeepalive::check(&want, &seen);
            let lines: String = found.iter().map(|f| format!("{}: {}\n", f.what, f.message)).collect();
            let table = VipKeepalive::overview(&want, &seen).unwrap_or_default();
            all.insert("check.txt".into(), lines + &table);
        }
        wrong.extend(laws::golden::differences(&case, all));
    }
    assert!(wrong.is_empty(), "{wrong:#?}\nBLESS=1 writes them");
}

#[test]
fn priorities_differ_and_no_machine_is_its_own_peer() {
    for case in cases() {
        let want = want(&case);
        let all: Vec<Config> = want.balancers.iter().map(|b| b.instance.config("eth0")).collect();
        for (n, config) in all.iter().enumerate() {
            assert!(!config.peers.contains(&config.source));
            assert_eq!(config.peers.len(), all.len() - 1);
            assert!(all[..n].iter().all(|other| other.priority != config.priority));
            assert!(config.nopreempt && config.state == "BACKUP");
        }
    }
}

/// An interface that keepalived takes: one that is up and no loopback.
fn interface() -> Option<String> {
    let entries = std::fs::read_dir("/sys/class/net").ok()?;
    let names = entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned()));
    names.filter(|n| n != "lo").find(|n| {
        std::fs::read_to_string(format!("/sys/class/net/{n}/operstate"))
            .is_ok_and(|state| state.trim() == "up")
    })
}

#[test]
fn the_real_keepalived_takes_them() {
    let keepalived = Path::new("/usr/sbin/keepalived");
    let (true, Some(interface)) = (keepalived.exists(), interface()) else {
        println!("skipped: keepalived is not installed (apt-get install keepalived), or no interface is up");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let ended = dir.path().join("ended");
    let test = |text: &str| {
        let file = dir.path().join("keepalived.conf");
        let text = text.replace(SCRIPT, "/usr/bin/true").replace(ENDED, ended.to_str().unwrap());
        std::fs::write(&file, text).unwrap();
        let said = Command::new(keepalived).arg("-t").arg("-f").arg(&file).output().unwrap();
        // 2.2.7 ends with SIGTERM to itself where a file has a vrrp_script: then its words alone count.
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        (said.status.code(), told)
    };
    for case in cases() {
        for balancer in &want(&case).balancers {
            let text = balancer.instance.text(&interface).unwrap();
            let (code, told) = test(&text);
            assert!(matches!(code, Some(0) | None) && told.trim().is_empty(), "{code:?} {told}\n{text}");
            let (code, told) = test(&text.replace("advert_int", "advert_innt"));
            assert!(code != Some(0) && told.contains("advert_innt"), "{code:?} {told}");
        }
    }
}

#[test]
fn the_check_asks_for_the_monitor() {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for status in ["200 OK", "503 Service Unavailable"] {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut byte) = (Vec::new(), [0; 1]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            asked.push(String::from_utf8_lossy(&request).into_owned());
            stream.write_all(format!("HTTP/1.0 {status}\r\n\r\n").as_bytes()).unwrap();
        }
        asked
    });
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("check-haproxy");
    std::fs::write(&script, SCRIPT_TEXT).unwrap();
    let run = || Command::new("bash").arg(&script).arg(&url).output().unwrap().status.code();
    assert_eq!((run(), run()), (Some(0), Some(1)));
    assert!(server.join().unwrap()[0].starts_with("GET /healthz HTTP/1.0\r\n"));
    assert_eq!(run(), Some(1), "nobody listens any more");
}
