//! The tool as a process of its own, killed while a machine leaves it waiting for an answer.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Site;

/// How long a run may take to come to a request, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

impl Site {
    /// Runs the tool until it has had `requests` answers over SSH and waits for the next, then kills it (SIGKILL);
    /// false when it came to its end before.
    pub async fn kill_at(&self, args: &[&str], document: &Value, requests: usize) -> bool {
        std::fs::write(self.path("document.json"), document.to_string()).unwrap();
        self.world.faults.inject(lab::Fault {
            window: lab::Window::Ssh,
            matching: String::new(),
            skip: requests,
            times: 1,
            action: lab::Action::Hang,
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_kadm-bootstrap"))
            .args(args)
            .args(["-f", "document.json"])
            .current_dir(self.path(""))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + PATIENCE;
        let killed = loop {
            if self.world.faults.left("") == Some(0) {
                child.kill().unwrap();
                child.wait().unwrap();
                break true;
            }
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{args:?}: {status}");
                break false;
            }
            assert!(Instant::now() < end, "{args:?} neither ends nor asks");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.world.faults.clear();
        killed
    }
}
