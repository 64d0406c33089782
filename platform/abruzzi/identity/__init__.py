"""Projects, tokens, roles, audit."""
