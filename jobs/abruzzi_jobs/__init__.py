"""Everything that runs inside a stage."""
