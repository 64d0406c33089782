"""Supervised fine-tuning (paper section 3.1, appendix B): the chat template, conversations as tokens with a loss mask, packing, the stage."""
