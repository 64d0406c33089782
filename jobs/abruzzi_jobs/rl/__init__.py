"""Reinforcement learning (paper 3.2, 3.3): engine, environments, rewards, rollouts, objective, weights, controller. Parts pass `contracts.rollout` only."""
