"""One module a stage kind: `run(context, reporter)` reads the spec and the inputs, computes, commits the outputs."""
