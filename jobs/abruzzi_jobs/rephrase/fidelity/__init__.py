"""Whether a rewrite still says what its source says, in layers from cheap to dear: rules on words, likeness as vectors (of letters, or of an embedding model), a language model."""
