"""Arms of an experiment compared over seeds: `python -m abruzzi_jobs.evals.comparison` as the command of a container stage."""
