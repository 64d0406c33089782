"""What a checkpoint is worth: held-out bits per byte against an n-gram model, cloze items, sample text."""
