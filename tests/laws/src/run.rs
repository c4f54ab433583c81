//! One run of a tool in this process.

use std::fmt;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use stage::{Edges, Exit, Tool};

use crate::{Broken, Case, steps};

/// What a run said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The command line, for reports.
    pub line: String,
    /// How it ended.
    pub exit: Exit,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// The events, one a line.
    pub events: String,
    /// The steps that were done, in the plan's order.
    pub done: Vec<String>,
    /// True when the run was killed as asked.
    pub crashed: bool,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Said { line, exit, stdout, stderr, .. } = self;
        let short: String = stdout.chars().take(2000).collect();
        write!(f, "$ {line}\n{short}\n--- stderr\n{stderr}--- exit {exit:?}")
    }
}

impl Said {
    /// The steps that `plan --json` showed.
    pub fn planned(&self) -> Vec<String> {
        steps(&self.stdout)
    }

    pub(crate) fn one_document(&self) -> Result<(), Broken> {
        if self.stdout.is_empty() {
            return Ok(());
        }
        let one = serde_json::from_str::<Value>(&self.stdout).is_ok_and(|v| v["kind"] == "Cluster");
        if one && self.stdout.ends_with('\n') {
            return Ok(());
        }
        Err(Broken(format!("law 5: stdout is neither empty nor one document\n{self}")))
    }
}

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a tool: its verb, flags, standard input, and after how many steps it is killed.
pub async fn run<T: Tool>(
    case: &Case,
    verb: &[&str],
    flags: &[&str],
    stdin: &str,
    kill: Option<usize>,
) -> Said {
    let (stdout, stderr) = (Sink::default(), Sink::default());
    let events = tempfile::NamedTempFile::new().map(|f| f.into_temp_path()).ok();
    let mut args: Vec<String> = vec![T::NAME.to_owned()];
    args.extend(verb.iter().chain(flags).map(|a| (*a).to_owned()));
    if let Some(path) = &events {
        args.extend(["--events".to_owned(), path.display().to_string()]);
    }
    let input = std::io::Cursor::new(stdin.as_bytes().to_vec());
    let mut edges = Edges::plain(input, stdout.clone(), stderr.clone(), case.dir.clone());
    edges.crash_after = kill;
    let crashed = edges.crashed.clone();
    let exit = stage::run::<T>(args.iter().map(Into::into).collect(), edges).await;
    let events = events.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    Said {
        line: args.join(" "),
        exit,
        stdout: stdout.text(),
        stderr: stderr.text(),
        done: done(&events),
        events,
        crashed: crashed.load(Ordering::SeqCst),
    }
}

/// The steps that events call done, in the plan's order; those of a second pass come after the first's.
fn done(events: &str) -> Vec<String> {
    let mut passes: Vec<Vec<(u64, String)>> = vec![Vec::new()];
    let mut running = 0_u32;
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        let n = event["n"].as_u64().unwrap_or_default();
        match event["event"].as_str() {
            Some("started") => {
                let again = passes.last().is_some_and(|p| p.iter().any(|(m, _)| *m == n));
                if again && running == 0 {
                    passes.push(Vec::new());
                }
                running += 1;
            }
            Some("done") => {
                running = running.saturating_sub(1);
                let step = event["step"].as_str().unwrap_or_default().to_owned();
                if let Some(pass) = passes.last_mut() {
                    pass.push((n, step));
                }
            }
            Some("failed") => running = running.saturating_sub(1),
            _ => {}
        }
    }
    for pass in &mut passes {
        pass.sort();
    }
    passes.into_iter().flatten().map(|(_, step)| step).collect()
}
