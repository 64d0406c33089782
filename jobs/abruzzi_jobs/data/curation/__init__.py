"""What makes documents worth training on: normal form, language, quality, privacy, decontamination, near-duplicates."""
