//! Traefik on NodePorts behind HAProxy, cert-manager with Vault or ACME.
