"""What an answer is worth: pure functions that suites share, and graders that ask a model."""
