//! What grants something, and that no argument list on any machine holds it (law 7).

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lab::Entry;

use super::Site;

/// Scripts that are given digests of what anybody may read, of the same shape as a certificate key; crictl names
/// containers by 64 hex digits.
const DIGESTS: [&str; 5] = ["kadm-key", "kadm-pin", "kadm-restore", "receive", "crictl"];
/// Beginnings of what is secret wherever it stands, and options whose value would be.
const WORDS: [&str; 7] = [
    "PRIVATE KEY",
    "AGE-SECRET-KEY-",
    "client-key-data",
    "--token",
    "--certificate-key",
    "--discovery-token",
    "--tls-bootstrap-token",
];

/// The certificate that tests let end soon.
const AGED: &str = "/etc/kubernetes/pki/front-proxy-client.crt";

/// Whether a word has the shape of a bootstrap token or a certificate key.
fn shaped(word: &str, digests: bool) -> bool {
    let token = word.len() == 23
        && word.as_bytes()[6] == b'.'
        && word.chars().all(|c| c == '.' || c.is_ascii_lowercase() || c.is_ascii_digit());
    token || (!digests && word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit()))
}

/// What is secret in the argument list of a command: `known` are the keys that there are.
pub fn secret_in(entry: &Entry, known: &BTreeSet<String>) -> Option<String> {
    let digests = DIGESTS.iter().any(|s| entry.request.starts_with(s));
    let of_word = |word: &String| {
        // A script is a constant: what it is given stands in words of its own.
        let script = word.contains("# kubeline:");
        let named = WORDS.iter().any(|w| word.contains(w) && !script);
        let separate = |c: char| c.is_whitespace() || matches!(c, '=' | ':' | ',' | '"' | '\'');
        let formed = !script && word.split(separate).any(|w| shaped(w, digests));
        named || formed || known.iter().any(|k| word.contains(k.as_str()))
    };
    entry.argv.iter().find(|word| of_word(word)).cloned()
}

fn soon(expires: i64) -> bool {
    expires - time::OffsetDateTime::now_utc().unix_timestamp() < 90 * 86_400
}

impl Site {
    /// The private keys that lie on the machines and with the operator, a line of each.
    fn keys(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (name, _) in self.machines() {
            let host = self.hosts.find(&name).unwrap();
            let machine = host.machine();
            for path in machine.fs.walk("/etc/kubernetes") {
                let text = machine.fs.text(&path);
                // The first lines of a key tell its kind alone.
                let lines = text.lines().skip_while(|l| !l.contains("PRIVATE KEY")).skip(2);
                all.extend(lines.take_while(|l| !l.starts_with('-')).map(str::to_owned));
                let data = text.lines().filter_map(|l| l.trim().strip_prefix("client-key-data: "));
                all.extend(data.map(str::to_owned));
            }
        }
        let identity = std::fs::read_to_string(self.path("age.key")).unwrap_or_default();
        all.extend(identity.lines().filter(|l| l.starts_with("AGE-")).map(str::to_owned));
        all.retain(|line| line.len() > 20);
        all
    }

    /// No token, key or hash that grants anything in any argument list; each world is asked when it ends.
    pub fn no_secret_in_argv(&self) {
        let known = self.keys();
        for entry in self.world.journal.since(0) {
            let found = secret_in(&entry, &known);
            assert_eq!(found, None, "a secret on a command line: {}", entry.request);
        }
    }

    /// An age identity in a file of the operator's, and its recipient.
    pub fn identity(&self) -> (PathBuf, String) {
        use age::secrecy::ExposeSecret as _;
        let key = age::x25519::Identity::generate();
        let path = self.path("age.key");
        std::fs::write(&path, format!("# created\n{}\n", key.to_string().expose_secret())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (path, key.to_public().to_string())
    }

    /// A certificate of the cluster's authority that ends in ten days.
    fn short_lived(&self, name: &str) -> String {
        let key = self.hosts.find(name).unwrap().machine().fs.text("/etc/kubernetes/pki/ca.key");
        let mut ca = rcgen::CertificateParams::default();
        ca.distinguished_name = rcgen::DistinguishedName::new();
        ca.distinguished_name.push(rcgen::DnType::CommonName, "kubernetes");
        let issuer = rcgen::Issuer::new(ca, rcgen::KeyPair::from_pem(&key).unwrap());
        let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(10);
        params.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap().pem()
    }

    /// Gives a control plane a certificate that ends soon.
    pub fn age_certificate(&self, name: &str) {
        let pem = self.short_lived(name);
        self.hosts.find(name).unwrap().machine().fs.put(AGED, pem, 0o644, "root", "root");
    }

    /// Gives the operator's kubeconfig one.
    pub fn age_kubeconfig(&self) {
        let data = STANDARD.encode(self.short_lived("cp-1"));
        let path = self.path("out/kubeconfig");
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(|l| match l.split_once("client-certificate-data: ") {
            Some((indent, _)) => format!("{indent}client-certificate-data: {data}\n"),
            None => format!("{l}\n"),
        });
        std::fs::write(&path, lines.collect::<String>()).unwrap();
        assert_eq!(self.kubeconfig_ends_soon(), Some(true));
    }

    /// Whether the operator's kubeconfig ends in less than 90 days.
    pub fn kubeconfig_ends_soon(&self) -> Option<bool> {
        let text = std::fs::read_to_string(self.path("out/kubeconfig")).ok()?;
        kadm_bootstrap::kubeconfig::read(&text, true).expires.map(soon)
    }

    /// Whether that certificate ends in less than 90 days.
    pub fn ends_soon(&self, name: &str) -> bool {
        let pem = self.hosts.find(name).unwrap().machine().fs.text(AGED);
        kadm_bootstrap::certificate::of_pem(pem.as_bytes()).is_some_and(|c| soon(c.expires))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.no_secret_in_argv();
        }
    }
}
