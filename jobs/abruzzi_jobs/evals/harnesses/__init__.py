"""Tasks of other harnesses against our checkpoints and endpoints: lm-eval's by its `LM` interface, inspect-ai's by its model API.

Each needs its extra (`abruzzi-jobs[lm-eval]`, `abruzzi-jobs[inspect-ai]`); nothing else of ours imports these modules.
"""
