"""Whether a text is right, as far as a machine can tell: programs by running them, mathematics by computing, knowledge by comparing."""
