"""Object storage, manifests and the commit protocol."""
