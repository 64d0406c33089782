"""Instruction data: prompts, answers by several models, what rules and a judge say of them, conversations as rows."""
