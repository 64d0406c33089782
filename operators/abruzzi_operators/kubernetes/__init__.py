"""The only door to a Kubernetes cluster: access (credentials), api (calls on plain dicts), reflector (a cache that watches), discovery (what is served)."""
