//! One VRRP address on three keepalived machines, proven.
