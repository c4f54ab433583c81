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
