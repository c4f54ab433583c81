//! Upstream artefacts: fetched from a pinned URL, checked against a pinned digest, kept in a cache.

use crate::error::{Class, Error};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The largest artefact, where its size is not pinned.
const LARGEST: u64 = 64 << 20;
/// How long a site is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file of others, pinned by digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artefact {
    /// The name, by which a bundle and an override know it.
    pub name: String,
    /// Where it is published.
    pub url: String,
    /// The SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its size in bytes, where known; no more than that is read.
    pub size: Option<u64>,
}

/// The bytes of an artefact: from the cache, else from the bundle, else (without a bundle) from its URL.
///
/// The digest is checked wherever the bytes come from. `cache` is a folder, made where it is missing. In a bundle
/// the file is called by the artefact's name or as the last part of its URL. Proxy settings of the environment are honoured.
pub async fn fetch(artefact: &Artefact, cache: &Path, bundle: Option<&Path>) -> Result<Vec<u8>, Error> {
    let kept = cache.join(artefact.sha256.to_ascii_lowercase());
    if let Ok(bytes) = tokio::fs::read(&kept).await {
        if digest(&bytes).eq_ignore_ascii_case(&artefact.sha256) {
            return Ok(bytes);
        }
        tracing::warn!("the cached {} is damaged; it is fetched again", artefact.name);
    }
    if let Some(bundle) = bundle {
        return from_bundle(artefact, bundle).await;
    }
    let bytes = download(artefact).await?;
    checked(artefact, &artefact.url, &bytes)?;
    keep(&kept, &bytes)?;
    Ok(bytes)
}

async fn from_bundle(artefact: &Artefact, bundle: &Path) -> Result<Vec<u8>, Error> {
    let last = artefact.url.rsplit('/').next().unwrap_or_default();
    let mut wanted = vec![artefact.name.clone()];
    if !last.is_empty() && last != artefact.name {
        wanted.push(last.to_owned());
    }
    for name in &wanted {
        let path = bundle.join(name);
        match tokio::fs::read(&path).await {
            Ok(bytes) => {
                checked(artefact, &path.display().to_string(), &bytes)?;
                return Ok(bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::File { doing: "read", path, source }),
        }
    }
    Err(Error::NotBundled { name: artefact.name.clone(), bundle: bundle.to_owned(), wanted })
}

fn checked(artefact: &Artefact, place: &str, bytes: &[u8]) -> Result<(), Error> {
    let found = digest(bytes);
    if found.eq_ignore_ascii_case(&artefact.sha256) {
        return Ok(());
    }
    Err(Error::Digest {
        name: artefact.name.clone(),
        place: place.to_owned(),
        wanted: artefact.sha256.clone(),
        found,
    })
}

/// Writes whole or not at all: a reader never sees half a file.
fn keep(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let failed = |doing, path: &Path, source| Error::File { doing, path: path.to_owned(), source };
    std::fs::create_dir_all(&folder).map_err(|source| failed("make the folder", &folder, source))?;
    let mut file =
        tempfile::NamedTempFile::new_in(&folder).map_err(|source| failed("write into", &folder, source))?;
    file.write_all(bytes).map_err(|source| failed("write", path, source))?;
    file.persist(path).map_err(|error| failed("write", path, error.error))?;
    Ok(())
}

async fn download(artefact: &Artefact) -> Result<Vec<u8>, Error> {
    // Fails only where a provider is there already, which is then as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let failed = |class, source: Box<dyn std::error::Error + Send + Sync>| Error::Fetch {
        name: artefact.name.clone(),
        url: artefact.url.clone(),
        class,
        source,
    };
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(10))
        .read_timeout(Duration::from_secs(30))
        .user_agent(concat!("kubeline/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| failed(Class::Internal, Box::new(error)))?;
    let begun = Instant::now();
    let mut pause = Duration::from_millis(200);
    loop {
        let (error, asked) = match once(&client, artefact).await {
            Ok(bytes) => return Ok(bytes),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Http(error, asked)) => (error, asked),
        };
        let class = match error.status() {
            None if error.is_builder() => Class::Precondition,
            None => Class::Unreachable,
            Some(status) if status.is_server_error() || status.as_u16() == 429 => Class::Transient,
            Some(_) => Class::Precondition,
        };
        let next = asked.unwrap_or(pause).max(pause);
        if class == Class::Precondition || begun.elapsed() + next > PATIENCE {
            // The URL stands in our own line already.
            return Err(failed(class, Box::new(error.without_url())));
        }
        tokio::time::sleep(next).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

enum Trouble {
    /// With the pause that the site asks for.
    Http(reqwest::Error, Option<Duration>),
    Final(Error),
}

impl From<reqwest::Error> for Trouble {
    fn from(error: reqwest::Error) -> Trouble {
        Trouble::Http(error, None)
    }
}

async fn once(client: &reqwest::Client, artefact: &Artefact) -> Result<Vec<u8>, Trouble> {
    let limit = artefact.size.unwrap_or(LARGEST);
    let answer = client.get(&artefact.url).send().await?;
    let asked = crate::wire::retry_after(answer.headers());
    let mut answer = answer.error_for_status().map_err(|error| Trouble::Http(error, asked))?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() as u64 + chunk.len() as u64 > limit {
            return Err(Trouble::Final(Error::TooLarge {
                name: artefact.name.clone(),
                place: artefact.url.clone(),
                limit,
            }));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn artefact(url: &str, content: &[u8]) -> Artefact {
        Artefact { name: "crds".into(), url: url.into(), sha256: digest(content), size: None }
    }

    /// Answers every request with one body.
    async fn site(status: &'static str, body: &'static [u8]) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(body).await;
            }
        });
        format!("http://{address}/v1/crds.yaml")
    }

    #[tokio::test]
    async fn fetched_once_then_cached_and_checked_on_reading() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("a/b");
        let url = site("200 OK", b"kind: X\n").await;
        let wanted = artefact(&url, b"kind: X\n");
        assert_eq!(fetch(&wanted, &cache, None).await.unwrap(), b"kind: X\n");
        // The site is not asked again, and an upper-case pin is the same pin.
        let offline = Artefact {
            url: "http://127.0.0.1:1/".into(),
            sha256: wanted.sha256.to_uppercase(),
            ..wanted.clone()
        };
        assert_eq!(fetch(&offline, &cache, None).await.unwrap(), b"kind: X\n");
        std::fs::write(cache.join(&wanted.sha256), "damaged").unwrap();
        assert_eq!(fetch(&wanted, &cache, None).await.unwrap(), b"kind: X\n");
    }

    #[tokio::test]
    async fn a_wrong_digest_names_both_and_keeps_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let url = site("200 OK", b"something else").await;
        let wanted = artefact(&url, b"kind: X\n");
        let error = fetch(&wanted, folder.path(), None).await.unwrap_err();
        assert_eq!(error.class(), Class::Precondition);
        let text = error.to_string();
        assert!(text.contains(&wanted.sha256) && text.contains(&digest(b"something else")), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn no_more_than_the_pinned_size_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let url = site("200 OK", b"kind: X\n").await;
        let wanted = Artefact { size: Some(3), ..artefact(&url, b"kind: X\n") };
        let error = fetch(&wanted, folder.path(), None).await.unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 3, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_is_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let url = site("404 Not Found", b"").await;
        let error = fetch(&artefact(&url, b""), folder.path(), None).await.unwrap_err();
        assert_eq!(error.class(), Class::Precondition);
    }

    #[tokio::test]
    async fn the_pause_that_the_site_asks_for_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = artefact(&format!("http://{}/crds.yaml", listener.local_addr().unwrap()), b"kind: X\n");
        let serving = async {
            for answer in [
                "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nkind: X\n",
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let begun = Instant::now();
        let (fetched, ()) = tokio::join!(fetch(&wanted, folder.path(), None), serving);
        assert_eq!(fetched.unwrap(), b"kind: X\n");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_bundle_replaces_the_site() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, bundle) = (folder.path().join("cache"), folder.path().join("bundle"));
        std::fs::create_dir(&bundle).unwrap();
        let wanted = artefact("http://127.0.0.1:1/v1/crds.yaml", b"kind: X\n");
        let error = fetch(&wanted, &cache, Some(&bundle)).await.unwrap_err();
        assert!(matches!(&error, Error::NotBundled { .. }), "{error}");
        assert!(error.hint().unwrap().contains("crds or crds.yaml"), "{:?}", error.hint());
        std::fs::write(bundle.join("crds.yaml"), "other").unwrap();
        assert!(matches!(fetch(&wanted, &cache, Some(&bundle)).await.unwrap_err(), Error::Digest { .. }));
        std::fs::write(bundle.join("crds.yaml"), "kind: X\n").unwrap();
        assert_eq!(fetch(&wanted, &cache, Some(&bundle)).await.unwrap(), b"kind: X\n");
    }
}
