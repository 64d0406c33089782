"""Pure shard → shard functions with manifests, and who runs them: local processes, tasks of Ray, or the indices of one Job."""
