"""Routes of attempts."""
