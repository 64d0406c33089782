"""The rival of bench/rl_learner.py, run by its own environment: loss and optimizer step of trl's GRPOTrainer on a batch that is given.

    python rl_learner_trl.py FOLDER THREADS

FOLDER holds `model/` (DeepseekV3) and `batch.json`. Then a word a line from the standard input, a JSON line for each: `settings` tries implementations
of attention and experts and keeps the fastest, `gradient` writes the gradient as if it were weights to FOLDER/gradient, `step` takes one step.
"""

from __future__ import annotations

import copy
import itertools
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
from transformers import DeepseekV3ForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

PAD = 0


def make_trainer(folder: Path, batch: dict[str, Any]) -> GRPOTrainer:
    model = DeepseekV3ForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    words = {f"<{index}>": index for index in range(model.config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<0>")), pad_token="<0>", eos_token="<1>"
    )
    sequences = len(batch["prompts"])
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        per_device_train_batch_size=sequences, gradient_accumulation_steps=1, num_generations=batch["group_size"],
        max_completion_length=max(map(len, batch["completions"])), beta=0.0, loss_type="dapo", scale_rewards="group",
        epsilon=batch["clip_low"], epsilon_high=batch["clip_high"], temperature=1.0, max_grad_norm=1.0,
        learning_rate=batch["lr"], use_vllm=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, processing_class=tokenizer, args=arguments, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["<1>"] * sequences}),
    )  # fmt: skip
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer._prepare_inputs = lambda inputs: inputs  # the batch is there: nothing is generated
    trainer.model.train()
    return trainer


def padded(rows: list[list[int]], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        here = slice(width - len(tokens), width) if left else slice(0, len(tokens))
        ids[row, here], mask[row, here] = torch.tensor(tokens), 1
    return ids, mask


def make_inputs(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """As GRPOTrainer makes them: prompts padded at the left, completions at the right, advantages over the group's standard deviation."""
    prompt_ids, prompt_mask = padded(batch["prompts"], left=True)
    completion_ids, completion_mask = padded(batch["completions"], left=False)
    grouped = torch.tensor(batch["rewards"]).view(-1, batch["group_size"])
    advantages = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    found = {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask,
        "completion_ids": completion_ids, "completion_mask": completion_mask,
        "advantages": advantages.flatten(), "num_items_in_batch": completion_mask.sum(),
    }  # fmt: skip
    if "anchor" in batch:
        anchor = torch.zeros(completion_ids.shape)
        for row, values in enumerate(batch["anchor"]):
            anchor[row, : len(values)] = torch.tensor(values)
        found["old_per_token_logps"] = anchor
    return found


class Rival:
    def __init__(self, folder: Path) -> None:
        self.folder, batch = folder, json.loads((folder / "batch.json").read_text())
        self.trainer, self.inputs = make_trainer(folder, batch), make_inputs(batch)

    def settings(self) -> dict[str, Any]:
        model = self.trainer.model
        seconds: dict[str, float] = {}
        choices = [f"{a}+{e}" for a, e in itertools.product(("sdpa", "eager"), ("grouped_mm", "eager"))]
        for choice in choices:
            self._set(choice)
            for _ in range(2):  # the second counts
                started = time.perf_counter()
                self.trainer.training_step(model, self.inputs, None)
                model.zero_grad(set_to_none=True)
                seconds[choice] = time.perf_counter() - started
        best = min(seconds, key=seconds.__getitem__)
        self._set(best)
        return {"best": best, "forward_backward_s": seconds}

    def gradient(self) -> dict[str, Any]:
        """With log-probabilities of the anchor, where the batch has them."""
        loss = self.trainer.training_step(self.trainer.model, self.inputs, None)
        weights = copy.deepcopy(self.trainer.model)
        with torch.no_grad():
            for parameter, own in zip(weights.parameters(), self.trainer.model.parameters(), strict=True):
                parameter.copy_(torch.zeros_like(own) if own.grad is None else own.grad)
        weights.save_pretrained(self.folder / "gradient")
        self.trainer.model.zero_grad(set_to_none=True)
        self.inputs.pop("old_per_token_logps", None)
        return {"loss": float(loss)}

    def step(self) -> dict[str, Any]:
        trainer = self.trainer
        started, worked = time.perf_counter(), time.process_time()
        loss = trainer.training_step(trainer.model, self.inputs, None)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.model.zero_grad(set_to_none=True)
        return {
            "seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - worked, "loss": float(loss),
        }  # fmt: skip

    def _set(self, choice: str) -> None:
        attention, experts = choice.split("+")
        self.trainer.model.set_attn_implementation(attention)
        self.trainer.model.set_experts_implementation(experts)


def main(folder: str, threads: str) -> None:
    torch.set_num_threads(int(threads))
    rival = Rival(Path(folder))
    answers = {"settings": rival.settings, "gradient": rival.gradient, "step": rival.step}
    sys.stderr.write("ready\n")
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
