//! `vip-keepalive drill` on real machines: what it reports is what happened.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use hosts::{Rounds, alone};
use laws::run;
use lb_render::LbRender;
use serde_json::Value;
use stage::Exit;
use vip_keepalive::VipKeepalive;

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
            let begun = std::time::Instant::now();
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
        let holder = rounds.holders().await[0].name.clone();
        site.machines.iter().find(|m| m.name != holder).unwrap().power_off().await.unwrap();
        let refused = run::<VipKeepalive>(&case, &["drill", "--yes"], &[], &case.document, None).await;
        assert_eq!(refused.exit, Exit::Precondition, "{refused}");
        assert!(refused.stderr.contains("it could become an outage"), "{refused}");
    });
}
