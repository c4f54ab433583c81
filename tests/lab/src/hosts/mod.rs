//! The SSH window: machines with services.
