"""The policy's losses, and what decides about rewards and sampling beside them. Pure."""
