"""Starts the ranks of one attempt on this machine and says truly how they ended."""
