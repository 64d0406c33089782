"""The service of sandbox pods: untrusted programs of stages run in pods of a namespace of their own, taken from a warm pool and destroyed after use."""
