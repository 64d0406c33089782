"""Everything that acts on a machine."""
