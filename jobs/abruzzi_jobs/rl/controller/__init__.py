"""The loop of reinforcement learning: phases in their order, what they leave in the journal, time and memory, the stage around it."""
