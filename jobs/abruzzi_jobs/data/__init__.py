"""Text in, tokens out: sources, corpus, tokenizer, memory-mapped token shards and their reader."""
