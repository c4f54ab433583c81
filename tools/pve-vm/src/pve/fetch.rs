//! A text of somebody else's server, such as a list of digests.

use super::client::{CONNECT, PATIENCE};
use super::tls::{self, Trust, Vouched};

/// Why there is no client, or no text from somebody else's server.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The trust is none.
    #[error("{0}")]
    Trust(String),
    /// The network, or the other side.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// More than this many bytes.
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    /// Bytes that are no text.
    #[error("it is no text")]
    NoText,
}

impl From<String> for Unusable {
    fn from(why: String) -> Unusable {
        Unusable::Trust(why)
    }
}

/// Fetches a text of somebody else's server.
pub(crate) async fn fetch(url: &str, trust: &Trust, largest: usize) -> Result<String, Unusable> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::config(trust, &Vouched::default())?)
        .connect_timeout(CONNECT)
        .timeout(PATIENCE)
        .build()?;
    let mut answer = http.get(url).send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await? {
        text.extend_from_slice(&part);
        if text.len() > largest {
            return Err(Unusable::TooLarge(largest));
        }
    }
    String::from_utf8(text).map_err(|_| Unusable::NoText)
}
