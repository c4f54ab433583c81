//! A session: a channel on which one command runs.

use std::sync::Arc;

use russh::client::Msg;
use russh::{ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::sync::OwnedSemaphorePermit;

use crate::link::Link;

/// A session channel, closed when it is dropped, also by a caller that lost interest.
pub(crate) struct Session {
    pub(crate) read: ChannelReadHalf,
    pub(crate) write: Option<ChannelWriteHalf<Msg>>,
    pub(crate) link: Arc<Link>,
    pub(crate) slot: Option<OwnedSemaphorePermit>,
}

impl Session {
    // sshd passes a signal on to the command's process group, as far as the user may.
    pub(crate) fn terminate(&mut self) {
        if let Some(write) = self.write.take() {
            let slot = self.slot.take();
            let link = Arc::clone(&self.link);
            close_later(async move {
                let _ = write.signal(Sig::TERM).await;
                let _ = write.close().await;
                drop((slot, link));
            });
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            let slot = self.slot.take();
            let link = Arc::clone(&self.link);
            close_later(async move {
                let _ = write.close().await;
                drop((slot, link));
            });
        }
    }
}

// Without a runtime the process is about to end, and the connection with it.
fn close_later(close: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(close);
    }
}
