"""Routes of red teams' results."""
