"""The learner: scored groups to one update of the weights."""
