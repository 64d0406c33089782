import { describe, expect, it } from "vitest";

import { lineLabel, panelsOf } from "./panels";

describe("panelsOf", () => {
  it("puts loss of training and validation together, first", () => {
    const [first] = panelsOf(["train/lr", "valid/loss", "train/loss"]);
    expect(first).toMatchObject({ id: "loss", keys: ["train/loss", "valid/loss"], isLayered: false });
  });
  it("draws layers instead of their maximum where both are there", () => {
    const [panel] = panelsOf(["train/max_logit", "train/max_logit/layer.00", "train/max_logit/layer.01"]);
    expect(panel).toMatchObject({ keys: ["train/max_logit/layer.00", "train/max_logit/layer.01"], isLayered: true });
  });
  it("gives unknown keys panels of their own and loses none", () => {
    const keys = ["b/x", "a/y", "a/z/layer.00", "a/z/layer.01", "train/loss"];
    expect(panelsOf(keys).flatMap((panel) => panel.keys).sort()).toEqual([...keys].sort());
  });
});

describe("panels of reinforcement learning", () => {
  it("begin with the reward, and leave seconds by cause to the timeline", () => {
    const keys = ["time/infer", "time/train", "time/iteration", "train/grad_norm", "rl/reward", "rl/reward/addition", "rl/held_out_reward", "rl/entropy"];
    const panels = panelsOf(keys);
    expect(panels.map((panel) => panel.id)).toEqual(["reward", "reward-family", "policy-entropy", "grad-norm"]);
    expect(panels[0]?.keys).toEqual(["rl/held_out_reward", "rl/reward"]);
  });
});

describe("lineLabel", () => {
  it("names layers by number", () => {
    expect(lineLabel("train/max_logit/layer.03", { keys: [], isLayered: true })).toBe("layer 3");
  });
  it("says what tells two keys apart", () => {
    expect(lineLabel("valid/loss", { keys: ["train/loss", "valid/loss"], isLayered: false })).toBe("valid");
    expect(lineLabel("train/update_rms/muon", { keys: ["train/update_rms/adamw", "train/update_rms/muon"], isLayered: false })).toBe("muon");
  });
});
