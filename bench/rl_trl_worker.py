"""The rival of bench/rl_trl.py, run by its own environment: trl's GRPOTrainer from given weights to the reward that is wanted.

python rl_trl_worker.py FOLDER THREADS SEED      prints a JSON line: {"iterations": [[seconds, mean reward], ...], "cpu_seconds": …, "tokens": …, "phases": …}

Nothing is logged but by the callback; dropout there is none, gradient checkpointing is off, generation and training take the whole batch at once, and
`settings` has found the fastest implementations of attention and experts.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import DeepseekV3ForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

PAD, END = 0, 1


class Watch(TrainerCallback):
    """Seconds and reward of each iteration; stops at the wanted reward, as the mean of some iterations."""

    def __init__(self, wanted: float, over: int) -> None:
        self.wanted, self.over = wanted, over
        self.rewards: list[float] = []
        self.seconds: list[float] = []
        self.tokens = 0
        self.rollout_seconds = self.started = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.started)
        last = self.rewards[-self.over :]
        if len(last) == self.over and sum(last) / self.over >= self.wanted:
            control.should_training_stop = True


class Trainer(GRPOTrainer):
    """Its rollouts are timed; all else is its own."""

    watch: Watch

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        began = time.perf_counter()
        found = super()._generate_and_score_completions(inputs)
        self.watch.rollout_seconds += time.perf_counter() - began
        return found


def main(folder: str, threads: str, seed: str) -> None:
    torch.set_num_threads(int(threads))
    plan = json.loads((Path(folder) / "plan.json").read_text())
    model = DeepseekV3ForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32)
    model.set_experts_implementation(plan["trl"]["experts"])
    model.set_attn_implementation(plan["trl"]["attention"])
    words = Tokenizer(WordLevel({f"<{i}>": i for i in range(model.config.vocab_size)}, unk_token="<0>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", eos_token="<1>")
    watch = Watch(plan["wanted"], plan["over"])

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        said = [[token for token in ids if token != END] for ids in completion_ids]
        watch.tokens += sum(map(len, completion_ids))
        found = [sum(token % 2 == 0 for token in ids) / len(ids) if ids else 0.5 for ids in said]
        watch.rewards.append(sum(found) / len(found))
        return found

    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        per_device_train_batch_size=plan["groups"] * plan["size"], num_generations=plan["size"], seed=int(seed),
        steps_per_generation=1, num_iterations=1, disable_dropout=True, dataloader_pin_memory=False,
        max_completion_length=plan["length"], beta=0.0, loss_type="dapo", scale_rewards="group", epsilon=0.2, epsilon_high=0.28,
        temperature=1.0, top_k=0, max_grad_norm=1.0, learning_rate=plan["lr"], lr_scheduler_type="constant",
        logging_strategy="no", max_steps=plan["iterations"], save_strategy="no", shuffle_dataset=False, disable_tqdm=True,
        use_vllm=False,
        # Of fixed lengths: no completion ends before its last token.
        generation_kwargs={"min_new_tokens": plan["length"]} if plan["lengths"] == "fixed" else None,
    )  # fmt: skip
    prompts = [" ".join(f"<{token}>" for token in prompt) for prompt in plan["prompts"]]
    trainer = Trainer(
        model=model, processing_class=tokenizer, args=arguments, reward_funcs=reward, callbacks=[watch],
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )  # fmt: skip
    trainer.watch = watch
    gc.collect()
    gc.freeze()
    before = time.process_time()
    trainer.train()
    told = {
        "iterations": list(zip(watch.seconds, watch.rewards, strict=True)),
        "cpu_seconds": time.process_time() - before,
        "tokens": watch.tokens,
        "phases": {"rollout": watch.rollout_seconds, "learn": watch.seconds[-1] - watch.rollout_seconds},
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
