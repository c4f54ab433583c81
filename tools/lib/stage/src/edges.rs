//! The edges of the world, as arguments: real in `start`, made up in tests.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

/// Asks the person at the terminal a question.
pub type Prompt = Arc<dyn Fn(&str) -> std::io::Result<String> + Send + Sync>;

/// Reads an environment variable.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Everything outside of the process that a run touches, but for its connections.
pub struct Edges {
    /// Standard input; `None` when it is closed.
    pub stdin: Option<Box<dyn Read + Send>>,
    /// True when standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Standard output.
    pub stdout: Box<dyn Write + Send>,
    /// Standard error.
    pub stderr: Arc<std::sync::Mutex<dyn Write + Send>>,
    /// True when standard error is a terminal.
    pub stderr_is_terminal: bool,
    /// A person who can be asked; `None` when there is no terminal.
    pub prompt: Option<Prompt>,
    /// Reads an environment variable.
    pub env: Env,
    /// What relative paths are taken against.
    pub working_dir: PathBuf,
    /// How often Ctrl-C was pressed.
    pub interrupts: watch::Receiver<u32>,
    /// Tests: end the run without another word after this many steps, as if it were killed.
    pub crash_after: Option<usize>,
    /// Tests: set when `crash_after` struck.
    pub crashed: Arc<AtomicBool>,
}

impl Edges {
    /// Edges without a terminal, signals or environment: for tests and for embedding.
    pub fn plain(
        stdin: impl Read + Send + 'static,
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
        working_dir: PathBuf,
    ) -> Edges {
        // A closed channel never changes again: nobody presses Ctrl-C here.
        let (_, interrupts) = watch::channel(0);
        Edges {
            stdin: Some(Box::new(stdin)),
            stdin_is_terminal: false,
            stdout: Box::new(stdout),
            stderr: Arc::new(std::sync::Mutex::new(stderr)),
            stderr_is_terminal: false,
            prompt: None,
            env: Arc::new(|_| None),
            working_dir,
            interrupts,
            crash_after: None,
            crashed: Arc::default(),
        }
    }
}
