"""Routes of recipes."""
