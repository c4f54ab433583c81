//! What a run has beside its movements, and what Ctrl-C does to them.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use cluster_doc::Exit;
use tokio::sync::watch;

use crate::Failure;
use crate::events::Events;

/// What a run has beside its movements.
pub(crate) struct Frame {
    /// The command as it was typed, to be typed again.
    pub(crate) line: String,
    pub(crate) events: Events,
    pub(crate) verbose: u8,
    pub(crate) interrupts: watch::Receiver<u32>,
    pub(crate) crash_after: Option<usize>,
    pub(crate) crashed: Arc<AtomicBool>,
}

/// A movement that only looks: Ctrl-C ends it at once.
pub(crate) async fn looking<V>(
    frame: &Frame,
    movement: impl Future<Output = Result<V, Failure>>,
) -> Result<V, Failure> {
    let mut interrupts = frame.interrupts.clone();
    tokio::select! {
        result = movement => result,
        () = pressed(&mut interrupts, 1) => {
            Err(Failure::new(Exit::Interrupted, "interrupted while looking; nothing was changed"))
        }
    }
}

/// Resolves when Ctrl-C was pressed this often; never, when nobody can press it any more.
pub(crate) async fn pressed(interrupts: &mut tokio::sync::watch::Receiver<u32>, times: u32) {
    if interrupts.wait_for(|n| *n >= times).await.is_err() {
        std::future::pending::<()>().await;
    }
}
