"""Pure shard → shard functions with manifests, and who runs them: local processes now, any executor that keeps the contract."""
