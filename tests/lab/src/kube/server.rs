//! The TLS server of one control plane.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::auth::Identity;
use super::cluster::Cluster;
use super::routes;
use crate::world::ApiServer;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is dropped")]
pub(crate) struct Dropped;

/// Takes any client certificate that proves its key: whether its CA is the cluster's is looked at per request, as the
/// real server does, which answers 401 and does not end the handshake.
#[derive(Debug)]
struct AnyClient {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What a control plane serves with.
pub(crate) struct Front {
    acceptor: TlsAcceptor,
    clients: Arc<dyn ClientCertVerifier>,
}

impl Front {
    /// From the PEM texts of an [`ApiServer`].
    pub(crate) fn new(server: &ApiServer) -> io::Result<Front> {
        let bad = |e: &dyn std::fmt::Display| io::Error::other(e.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for ca in CertificateDer::pem_slice_iter(server.client_ca.as_bytes()) {
            roots.add(ca.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
        }
        let clients: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|e| bad(&e))?;
        let chain = CertificateDer::pem_slice_iter(server.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).map_err(|e| bad(&e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| bad(&e))?
            .with_client_cert_verifier(Arc::new(AnyClient { inner: clients.clone() }))
            .with_single_cert(chain, key)
            .map_err(|e| bad(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Front { acceptor: TlsAcceptor::from(Arc::new(config)), clients })
    }

    fn identity(&self, chain: Option<&[CertificateDer<'_>]>) -> Identity {
        let Some([first, rest @ ..]) = chain else { return Identity::Anonymous };
        match self.clients.verify_client_cert(first, rest, UnixTime::now()) {
            Ok(_) => Identity::of_certificate(first),
            Err(_) => Identity::Refused,
        }
    }
}

/// Serves until the token is cancelled. The port may still be held by the server before this one: it is waited for.
pub(crate) async fn serve(cluster: Arc<Cluster>, server: ApiServer, front: Front, stop: CancellationToken) {
    let Some(address) = server.listen else { return };
    let front = Arc::new(front);
    let host: Arc<str> = server.host.as_str().into();
    let mut waited = Duration::ZERO;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) if waited > Duration::from_secs(10) => {
                tracing::error!(%address, %error, "the API server cannot listen");
                return;
            }
            Err(_) => {
                let step = Duration::from_millis(10);
                tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(step) => waited += step }
            }
        }
    };
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
        };
        tokio::spawn(connection(cluster.clone(), front.clone(), host.clone(), stream, stop.clone()));
    }
}

async fn connection(
    cluster: Arc<Cluster>,
    front: Arc<Front>,
    host: Arc<str>,
    stream: TcpStream,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let tls = tokio::select! {
        () = stop.cancelled() => return,
        done = front.acceptor.accept(stream) => match done { Ok(tls) => tls, Err(_) => return },
    };
    let identity = front.identity(tls.get_ref().1.peer_certificates());
    let over = stop.clone();
    let service = service_fn(move |request| {
        routes::handle(cluster.clone(), host.clone(), identity.clone(), over.clone(), request)
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        () = stop.cancelled() => {}
        _ = builder.serve_connection(TokioIo::new(tls), service) => {}
    }
}
