"""Rephrasing (paper section 2.2): a prompt grid, documents rewritten part by part, and what checks that they still say the same."""
