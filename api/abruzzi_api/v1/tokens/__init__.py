"""Routes of tokens."""
