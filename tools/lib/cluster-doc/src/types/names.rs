//! Names, each in the alphabet of whoever has to bear it.

use std::fmt;

use super::word;

/// Declares a name: a checked string.
macro_rules! name {
    ($(#[doc = $doc:literal])* $name:ident, $example:literal, $check:expr, $rule:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name when it is one.
            ///
            /// # Errors
            /// A sentence that says what would do.
            pub fn parse(text: &str) -> Result<$name, String> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok($name(text.to_owned())) } else { Err(concat!("is no name here: ", $rule).to_owned()) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str { &self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }

        word!($name, example $example);
    };
}

/// RFC 1123: letters, digits and inner hyphens.
fn label(text: &str, longest: usize) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty()
        && text.len() <= longest
        && text.chars().all(|c| inner(c) || c == '-')
        && text.starts_with(inner)
        && text.ends_with(inner)
}

name! {
    /// The name of a cluster, pool or machine: a DNS label (RFC 1123).
    Name, "prod", |t| label(t, 40), "use lower-case letters, digits and inner hyphens, 40 at most"
}

name! {
    /// The name of a Proxmox node, or of a storage, pool or template there.
    NodeName, "pve1",
    |t| !t.is_empty() && t.len() <= 63 && t.starts_with(|c: char| c.is_ascii_alphanumeric())
        && t.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
    "use letters, digits, - _ and ., beginning with a letter or digit, 63 at most"
}

name! {
    /// A DNS name (RFC 1123 subdomain).
    DnsName, "lab.example",
    |t| t.len() <= 253 && t.split('.').all(|part| label(part, 63)),
    "write a DNS name in lower case, such as \"lab.example\""
}

name! {
    /// The name of a Linux account.
    UserName, "kubeline",
    |t| !t.is_empty() && t.len() <= 32 && t.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && t.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c)),
    "use lower-case letters, digits, - and _, beginning with a letter, 32 at most"
}

name! {
    /// The name of a network interface or bridge (Linux: 15 bytes at most).
    BridgeName, "vmbr0",
    |t| !t.is_empty() && t.len() <= 15 && t.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)),
    "use letters, digits, - _ and ., 15 at most"
}
