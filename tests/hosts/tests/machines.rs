//! The seven laws over real machines: killed after each step and run again, the same world.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests fail loudly")]

use hosts::{Machine, alone};
use laws::run;
use lb_render::LbRender;
use serde_json::json;
use stage::Exit;
use vip_keepalive::VipKeepalive;

#[test]
fn lb_render_keeps_them() {
    alone("lb_render_keeps_them", 1, async |site| {
        site.machines[0].ok(&["apt-get", "update", "-q"]).await.unwrap();
        site.machines[0].keep().await.unwrap();
        let spec = site.spec();
        let make = async || {
            site.machines[0].back().await.unwrap();
            site.case(&spec)
        };
        let summary = laws::check::<LbRender>(&[], &[], make).await.unwrap_or_else(|e| panic!("{e}"));
        println!("{summary}");
    });
}

#[test]
fn vip_keepalive_keeps_them() {
    alone("vip_keepalive_keeps_them", 2, async |site| {
        let case = site.case(&site.spec());
        let said = run::<LbRender>(&case, &["apply"], &[], &case.document, None).await;
        assert_eq!(said.exit, Exit::Done, "{said}");
        for machine in &site.machines {
            let install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"];
            machine.ok(&[&install[..], &["keepalived", "iputils-arping"]].concat()).await.unwrap();
        }
        futures::future::try_join_all(site.machines.iter().map(Machine::keep)).await.unwrap();
        let mut spec = site.spec();
        spec["packages"] = json!({ "source": "present" });
        let make = async || {
            futures::future::try_join_all(site.machines.iter().map(Machine::back)).await.unwrap();
            site.case(&spec)
        };
        let summary = laws::check::<VipKeepalive>(&[], &[], make).await.unwrap_or_else(|e| panic!("{e}"));
        println!("{summary}");
    });
}
