"""Self-critique (paper 3.2.2): answers of a group compared in pairs by rubrics, and a critic that is measured and taught on tasks whose answers can be verified."""
