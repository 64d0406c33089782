"""Executors: they make workloads of stage specs and observe them."""
