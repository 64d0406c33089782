"""A base in the form of SmolLM2's, with small random weights."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from abruzzi_jobs.export.gguf import GgufModel
from abruzzi_jobs.models import Llama, LlamaConfig

TURNS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def small_base(*, max_position: int = 64) -> GgufModel:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[*TURNS], show_progress=False
    )
    tokenizer.train_from_iterator(["the sea and the river and the lake"] * 4, trainer=trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in TURNS])
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8,
        intermediate_size=64, max_position=max_position, tie_embeddings=True,
    )  # fmt: skip
    return GgufModel(
        name="small", licence="apache-2.0", config=config, state=Llama(config, seed=0).state_dict(), tokenizer=tokenizer,
        chat_template="{{ messages }}", beginning=TURNS[1], end_of_turn=TURNS[2], quantisation={"F32": 1},
    )  # fmt: skip
