"""Log chunks in object storage with an index."""
