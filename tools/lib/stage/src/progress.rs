//! Progress and messages on stderr: bars on a terminal, lines elsewhere.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::args::{LogForm, When};

tokio::task_local! {
    /// The bar of the step in hand, and its line.
    static BAR: (Bar, String);
}

/// Where messages go. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Progress {
    tool: &'static str,
    stderr: Arc<Mutex<dyn Write + Send>>,
    form: LogForm,
    verbose: u8,
    bars: Option<MultiProgress>,
    waiting: Arc<Mutex<Option<String>>>,
}

impl Progress {
    pub(crate) fn new(
        tool: &'static str,
        stderr: Arc<Mutex<dyn Write + Send>>,
        terminal: bool,
        when: When,
        form: LogForm,
        verbose: u8,
    ) -> Progress {
        let shown = match when {
            When::Auto => terminal && form == LogForm::Text,
            When::Always => true,
            When::Never => false,
        };
        let bars = shown.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));
        Progress { tool, stderr, form, verbose, bars, waiting: Arc::default() }
    }

    /// A sentence on stderr.
    pub(crate) fn line(&self, message: &str) {
        let text = match self.form {
            LogForm::Text => format!("{}: {message}\n", self.tool),
            LogForm::Json => format!("{}\n", json!({ "tool": self.tool, "message": message })),
        };
        self.raw(&text);
    }

    /// Text on stderr as it is.
    pub(crate) fn raw(&self, text: &str) {
        let write = || {
            let mut stderr = self.stderr.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // There is nobody left to tell when stderr itself is closed.
            let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    /// What is being waited for now.
    pub(crate) fn waiting(&self, what: String) {
        if self.verbose > 0 {
            self.line(&format!("waiting for {what}"));
        }
        let _ = BAR.try_with(|(bar, line)| bar.0.set_message(format!("{line}: {what}")));
        *self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(what);
    }

    /// What was being waited for last.
    pub(crate) fn last_waiting(&self) -> Option<String> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// True where bars show what is being waited for.
    pub(crate) fn shows_bars(&self) -> bool {
        self.bars.is_some()
    }

    /// Does a step's work, with a bar that tells what it waits for.
    pub(crate) async fn step<F: Future>(&self, line: &str, work: F) -> F::Output {
        match self.bar(line) {
            Some(bar) => BAR.scope((bar, line.to_owned()), work).await,
            None => work.await,
        }
    }

    /// A step's bar, which ends when the value is dropped.
    fn bar(&self, line: &str) -> Option<Bar> {
        let bars = self.bars.as_ref()?;
        let bar = bars.add(ProgressBar::new_spinner());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message(line.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Some(Bar(bar))
    }
}

/// A step's bar.
pub(crate) struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
