"""The parts of stage `rl` in processes of their own: a trainer, inference replicas, workers for environments and rewards; replaced when one is lost."""
