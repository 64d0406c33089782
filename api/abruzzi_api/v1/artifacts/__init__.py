"""Routes of artifacts."""
