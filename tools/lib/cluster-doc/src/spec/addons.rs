//! What runs inside the cluster.

use crate::read::{choice, section};
use crate::types::{
    Calendar, DnsName, Endpoint, FilePath, MountPath, Name, Port, Quantity, Retention, Sha256,
};

use super::site::port;

choice! {
    /// What becomes of a volume's data when its claim is deleted.
    pub enum OnDelete {
        /// The folder is renamed.
        Archive = "archive",
        /// The folder is deleted.
        Delete = "delete",
        /// The volume stays, for somebody to decide.
        Retain = "retain",
    }
}

section! {
    /// NFS exports and their storage classes.
    pub struct Storage {
        /// The exports, one class each.
        exports: Vec<Export>,
    }
}

section! {
    /// A folder of the NFS server that volumes are made in.
    pub struct Export {
        /// The folder.
        path: MountPath,
        /// The storage class that makes volumes there.
        storage_class: Name,
        /// What becomes of a deleted volume's data.
        on_delete: OnDelete = OnDelete::Archive,
        /// True for the class of claims that name none.
        default: bool = false,
        /// Scheduled backups of the folder.
        backup: Option<ExportBackup>,
    }
}

section! {
    /// Backups of an export by restic.
    pub struct ExportBackup {
        /// When (systemd's OnCalendar).
        schedule: Calendar,
        /// How many are kept.
        keep: u32,
        /// The restic repository.
        repository: String,
        /// File with the repository's password, mode 0600.
        password_file: FilePath,
    }
}

choice! {
    /// Who takes HTTP in.
    pub enum IngressProvider {
        /// Traefik.
        Traefik = "traefik",
    }
}

section! {
    /// The way in for HTTP.
    pub struct Ingress {
        /// Who takes it in.
        provider: IngressProvider = IngressProvider::Traefik,
        /// The NodePort of HTTP.
        http_node_port: Port = port(30080),
        /// The NodePort of HTTPS.
        https_node_port: Port = port(30443),
        /// The NodePort of Traefik's ping, for the load balancers' health checks.
        ping_node_port: Port = port(30082),
        /// Where certificates come from.
        certificates: Option<Certificates>,
    }
}

section! {
    /// Where certificates come from.
    pub struct Certificates {
        /// HashiCorp Vault's PKI.
        vault: Option<Vault>,
        /// An ACME authority.
        acme: Option<Acme>,
    }
}

section! {
    /// Vault as the issuer of certificates.
    pub struct Vault {
        /// Its servers; the first is the issuer's unless the load balancers front them.
        servers: Vec<Endpoint>,
        /// The CA of Vault's own certificate (PEM).
        ca_file: Option<FilePath>,
        /// The mount of the PKI engine.
        mount: String,
        /// The role of that mount.
        role: String,
        /// How cert-manager logs in.
        auth: VaultAuth,
    }
}

section! {
    /// How cert-manager logs in to Vault; one of the two.
    pub struct VaultAuth {
        /// By AppRole.
        app_role: Option<AppRole>,
        /// By a Kubernetes service account.
        kubernetes: Option<VaultServiceAccount>,
    }
}

section! {
    /// A login by AppRole.
    pub struct AppRole {
        /// The role's id.
        role_id: String,
        /// File with the secret id, mode 0600.
        secret_id_file: FilePath,
        /// The mount of the auth method.
        mount: String = "approle".to_owned(),
    }
}

section! {
    /// A login by a service account's token.
    pub struct VaultServiceAccount {
        /// The role at Vault.
        role: String,
        /// The mount of the auth method.
        mount: String = "kubernetes".to_owned(),
    }
}

section! {
    /// An ACME authority.
    pub struct Acme {
        /// Its directory, such as https://acme-v02.api.letsencrypt.org/directory.
        server: String,
        /// The address that it writes to.
        email: String,
    }
}

section! {
    /// Metrics, logs and dashboards.
    pub struct Observability {
        /// Prometheus.
        prometheus: Prometheus,
        /// Grafana.
        grafana: Option<Grafana>,
        /// Logs in Loki.
        logs: Option<Logs>,
    }
}

choice! {
    /// Where data of the observability stack lies.
    pub enum VolumePlace {
        /// On a folder of one worker.
        Local = "local",
        /// On a volume of the default storage class.
        Class = "class",
    }
}

section! {
    /// Prometheus.
    pub struct Prometheus {
        /// How long samples are kept.
        retention: Retention,
        /// The size of its volume.
        size: Quantity,
        /// Where the volume lies.
        storage: VolumePlace = VolumePlace::Local,
    }
}

section! {
    /// Grafana.
    pub struct Grafana {
        /// The host name of its ingress.
        host: DnsName,
    }
}

choice! {
    /// Who ships logs to Loki.
    pub enum LogAgent {
        /// Promtail (end of life since March 2026).
        Promtail = "promtail",
        /// Grafana Alloy.
        Alloy = "alloy",
    }
}

section! {
    /// Logs in Loki.
    pub struct Logs {
        /// Who ships them.
        agent: LogAgent = LogAgent::Alloy,
        /// How long they are kept.
        retention: Retention,
        /// The size of Loki's volume.
        size: Quantity,
        /// Where the volume lies.
        storage: VolumePlace = VolumePlace::Local,
    }
}

section! {
    /// Another address and digest for an upstream artefact.
    pub struct Artifact {
        /// The artefact's name, as `plan` shows it.
        name: Name,
        /// Where it is fetched.
        url: String,
        /// Its SHA-256.
        sha256: Sha256,
    }
}
