//! A Vault server, as far as a load balancer can tell: its health over TLS, and who answers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use tokio::net::TcpListener;

use crate::Result;
use crate::standins::{Authority, serve, whole};

/// Initialised, unsealed, active (Vault's API documentation, `/sys/health`).
pub const ACTIVE: u16 = 200;
/// Unsealed, on standby.
pub const STANDBY: u16 = 429;
/// What else it answers: the active one of a disaster recovery replica, a performance standby, not initialised, sealed.
pub const OTHERS: [u16; 4] = [472, 473, 501, 503];

/// A server on port 8200.
pub struct Vault {
    /// Its name, which is its answer to every other request.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    health: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Vault {
    /// Listens with a certificate for these names.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(
        name: &str,
        address: Ipv4Addr,
        authority: &Authority,
        names: &[&str],
    ) -> Result<Vault> {
        let acceptor = authority.acceptor(names)?;
        let (health, asked) = (Arc::new(AtomicU16::new(STANDBY)), Arc::new(AtomicUsize::new(0)));
        let (me, state, count) = (name.to_owned(), health.clone(), asked.clone());
        let listener = TcpListener::bind((address, 8200)).await?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, me, state, count) =
                    (acceptor.clone(), me.clone(), state.clone(), count.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    serve(stream, move |request| match request.uri().path() {
                        "/v1/sys/health" => {
                            count.fetch_add(1, Ordering::Relaxed);
                            whole(state.load(Ordering::Relaxed), "{}")
                        }
                        _ => whole(200, me.clone()),
                    })
                    .await;
                });
            }
        });
        Ok(Vault { name: name.to_owned(), address, health, asked })
    }

    /// What its health is from now on; how often it is asked is counted anew.
    pub fn set_health(&self, status: u16) {
        self.health.store(status, Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
    }

    /// How often it told its health since it was set.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}
