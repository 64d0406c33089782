"""What of the package `verifiers` 0.4.0 our player uses, without its dependencies; the longer proof plays the same taskset with the real one."""
