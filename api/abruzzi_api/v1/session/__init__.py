"""Routes of session."""
