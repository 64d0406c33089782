"""Environments of others as ours, and ours as theirs: Gymnasium, and OpenEnv's wire in both directions."""
