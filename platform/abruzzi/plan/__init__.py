"""Pure arithmetic over a recipe: parameters, FLOPs, memory, time."""
