"""Agents: a system prompt and a set of tools each, made from a catalogue (paper 3.1.1)."""

from abruzzi_jobs.synthesis.agents.make import GENERATOR, make_agents

__all__ = ["GENERATOR", "make_agents"]
