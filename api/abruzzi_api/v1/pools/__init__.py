"""Routes of pools."""
