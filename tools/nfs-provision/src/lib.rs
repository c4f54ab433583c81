//! NFS exports, their provisioner and a storage class each.
