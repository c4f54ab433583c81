//! One line of JSON a step, for programs that watch.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::{Value, json};

use crate::Failure;

/// The event file; none when it was not asked for.
pub(crate) struct Events {
    tool: &'static str,
    start: Instant,
    file: Option<Mutex<File>>,
}

impl Events {
    pub(crate) fn open(tool: &'static str, path: Option<&Path>) -> Result<Events, Failure> {
        let file = path
            .map(|path| {
                File::options().create(true).append(true).open(path).map(Mutex::new).map_err(|e| {
                    Failure::precondition(format!("cannot open {} for events", path.display()))
                        .because(e.to_string())
                })
            })
            .transpose()?;
        Ok(Events { tool, start: Instant::now(), file })
    }

    pub(crate) fn emit(&self, event: &str, mut more: Value) {
        let Some(file) = &self.file else { return };
        more["event"] = event.into();
        more["tool"] = self.tool.into();
        more["seconds"] = json!((self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0);
        let mut file = file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // A watcher that is gone must not stop the work.
        let _ = file.write_all(format!("{more}\n").as_bytes());
    }
}
