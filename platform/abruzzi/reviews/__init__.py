"""What people say of rows of artifacts: accepted or rejected."""
