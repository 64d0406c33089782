"""Routes of artifacts' rows and facts."""
