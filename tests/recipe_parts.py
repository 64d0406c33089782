"""Stages that recipes of tests share, as text."""

TRAINED = """\
[[stage]]
id = "corpus"
kind = "corpus"
data = { sources = ["python-stdlib"] }

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]

[[stage]]
id = "pretrain"
kind = "pretrain"
needs = ["tokenize"]
model = { preset = "tiny" }
schedule = { tokens = "4M" }
batch = { sequences = 32, sequence_length = 128 }
"""
