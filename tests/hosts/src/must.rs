//! A program of the machine that tests, run to its end.

use tokio::process::Command;

use crate::Result;

/// Runs a program of the test's own side; its output must be good.
pub(crate) async fn must(program: &str, args: &[&str]) -> Result<()> {
    let said = Command::new(program).args(args).output().await?;
    if said.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&said.stderr).trim().to_owned();
    Err(format!("{program} {}: {told}", args.join(" ")).into())
}
