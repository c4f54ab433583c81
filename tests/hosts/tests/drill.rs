//! `vip-keepalive drill` on real machines: what it reports is what happened.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use std::time::{Duration, Instant};

use hosts::{Rounds, Site, alone, until};
use laws::{Case, run};
use lb_render::LbRender;
use serde_json::Value;
use stage::Exit;
use vip_keepalive::VipKeepalive;

/// The document of a drill that is killed, for the process that runs it.
const DOCUMENT: &str = "KUBELINE_HOSTS_DRILL";

/// A drill that takes the link down is killed meanwhile, and its connections with it; then the unit on the machine that
/// was to bring the link back is killed as well. Each time the machine comes back by itself, with its routes.
async fn killed_meanwhile(site: &Site, case: &Case, rounds: &Rounds<'_>) {
    let document = site.dir.join("drill.json");
    std::fs::write(&document, &case.document).unwrap();
    for machine in &site.machines {
        machine.ok(&["ip", "route", "add", "10.98.0.0/16", "via", "10.99.0.1"]).await.unwrap();
    }
    for unit_too in [false, true] {
        let holder = rounds.holders().await[0];
        let mut drill = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["the_drill_that_is_killed", "--exact", "--nocapture"])
            .env(DOCUMENT, &document)
            .spawn()
            .unwrap();
        let link = ["ip", "-o", "link", "show", "dev", "host0"];
        until("the link is down", Duration::from_secs(40), async || {
            holder.ok(&link).await.is_ok_and(|shown| shown.contains("state DOWN"))
        })
        .await
        .unwrap();
        let begun = Instant::now();
        drill.kill().unwrap();
        drill.wait().unwrap();
        if unit_too {
            holder.ok(&["systemctl", "kill", "--signal=KILL", "kubeline-drill.service"]).await.unwrap();
        }
        until("the link is back", Duration::from_secs(40), async || {
            holder.ok(&link).await.is_ok_and(|shown| shown.contains("state UP"))
        })
        .await
        .unwrap();
        println!("killed, the unit too: {unit_too}; the link was back after {:?}", begun.elapsed());
        rounds.well().await.unwrap();
        until("no unit and no file is left", Duration::from_secs(40), async || {
            let units = ["systemctl", "list-units", "--all", "--no-legend", "kubeline-drill*"];
            let left = holder.ok(&units).await.unwrap();
            let file = holder.ok(&["test", "!", "-e", "/run/kubeline/drill-routes"]).await;
            left.trim().is_empty() && file.is_ok()
        })
        .await
        .unwrap();
        let routes = holder.ok(&["ip", "route", "show", "10.98.0.0/16"]).await.unwrap();
        assert!(routes.contains("via 10.99.0.1"), "its routes are back: {routes:?}");
    }
}

/// The process that [`killed_meanwhile`] kills: a drill in the site of the test that started it.
#[test]
fn the_drill_that_is_killed() {
    let Some(document) = std::env::var_os(DOCUMENT) else {
        println!("skipped: it is the process that another test kills");
        return;
    };
    let document = std::path::PathBuf::from(document);
    let dir = document.parent().unwrap().to_path_buf();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let exit = runtime.block_on(async {
        let input = std::fs::File::open(&document).unwrap();
        let edges = stage::Edges::plain(input, std::io::stdout(), std::io::stderr(), dir);
        let args = ["vip-keepalive", "drill", "--yes", "--how", "link"].map(Into::into).to_vec();
        stage::run::<VipKeepalive>(args, edges).await
    });
    panic!("it was to be killed, and ended with {exit:?}");
}

#[test]
fn drills_break_measure_and_heal() {
    alone("drills_break_measure_and_heal", 3, async |site| {
        let case = site.case(&site.spec());
        let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let said = run::<VipKeepalive>(&case, &["apply"], &[], &said.stdout, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        let rounds = Rounds::new(&site).await.unwrap();
        for how in ["haproxy", "keepalived", "link", "reboot"] {
            let holder = rounds.holders().await[0].name.clone();
            let before = (case.picture)();
            let begun = Instant::now();
            let drill = ["drill", "--yes", "--how", how];
            let said = run::<VipKeepalive>(&case, &drill, &[], &case.document, None).await;
            assert_eq!(said.exit, Exit::Done, "{said}");
            let report: Value = serde_json::from_str(&said.stdout).unwrap();
            println!("{how}: {report} after {:?}", begun.elapsed());
            assert_eq!(report["from"], holder.as_str(), "{said}");
            assert!(report["gapMs"].as_u64().unwrap() <= 1000, "{said}");
            rounds.well().await.unwrap();
            assert_eq!(
                report["to"],
                rounds.holders().await[0].name.as_str(),
                "who took it over keeps it: {said}"
            );
            assert_eq!(before, (case.picture)(), "a drill leaves no trace in files");
        }
        let said = run::<VipKeepalive>(&case, &["plan"], &[], &case.document, None).await;
        assert!(said.exit == Exit::Done && said.stdout.contains("nothing to do"), "{said}");
        killed_meanwhile(&site, &case, &rounds).await;
        let holder = rounds.holders().await[0].name.clone();
        site.machines.iter().find(|m| m.name != holder).unwrap().power_off().await.unwrap();
        let refused = run::<VipKeepalive>(&case, &["drill", "--yes"], &[], &case.document, None).await;
        assert_eq!(refused.exit, Exit::Precondition, "{refused}");
        assert!(refused.stderr.contains("it could become an outage"), "{refused}");
    });
}
