//! The third law for the whole chain: killed anywhere, run again, the same world.
//!
//! By default a few points; `just sweep` does every stage boundary and 20 seeded steps.
#![allow(clippy::unwrap_used)] // A test says what it expects.

mod site;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_anywhere_and_run_again() {
    let undisturbed = Site::new().await;
    let said = undisturbed.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let (same, steps) = (undisturbed.picture(), undisturbed.steps_done());
    drop(undisturbed);

    let all = std::env::var("KUBELINE_SWEEP").is_ok_and(|v| v == "all");
    let boundaries: Vec<usize> = if all { (1..=8).collect() } else { vec![1, 4] };
    let mut seeds = StdRng::seed_from_u64(36);
    let kills: Vec<usize> = (0..if all { 20 } else { 2 }).map(|_| seeds.random_range(1..steps)).collect();

    let (mut struck, mut converged) = (0, 0);
    for boundary in &boundaries {
        let site = Site::new().await;
        let mark = format!("{boundary:02}-");
        struck += usize::from(
            site.killed("up", |s| {
                let files = std::fs::read_dir(s.out("")).into_iter().flatten().flatten();
                files.into_iter().any(|f| f.file_name().to_string_lossy().starts_with(&mark))
            })
            .await,
        );
        converged += usize::from(again(&site, &same, &format!("stage {boundary}")).await);
    }
    for kill in &kills {
        let site = Site::new().await;
        struck += usize::from(site.killed("up", |s| s.steps_done() >= *kill).await);
        converged += usize::from(again(&site, &same, &format!("step {kill} of {steps}")).await);
    }
    println!(
        "pipeline sweep: {} boundaries, {} steps of {steps}, {struck} killed, {converged} converged",
        boundaries.len(),
        kills.len()
    );
    assert_eq!(converged, boundaries.len() + kills.len());
}

async fn again(site: &Site, same: &str, killed: &str) -> bool {
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "killed at {killed}, then: {}", said.stderr);
    let picture = site.picture();
    assert!(picture == same, "killed at {killed}:\n{picture}\nrather than\n{same}");
    let mark = site.lab.world.journal.len();
    let said = site.chain("up", &[]).await;
    assert_eq!(said.exit, 0, "{}", said.stderr);
    let changing = site.lab.world.journal.changing_since(mark);
    assert!(changing.is_empty(), "killed at {killed}, the run after the next changed: {changing:#?}");
    true
}
