import { describe, expect, it } from "vitest";

import { thresholdMarks } from "./threshold";

const stage = (kind: string, qk_clip_threshold: number) => ({ config: { optimizer: { kind, qk_clip_threshold } } });

describe("thresholdMarks", () => {
  it("draws each τ once, and none for an optimizer that does not clip", () => {
    expect(thresholdMarks("max-logit", [stage("muonclip", 30), stage("muonclip", 30), stage("muon", 100)])).toEqual([{ value: 30, label: "τ = 30" }]);
  });
  it("belongs to one panel, and to stages that have an optimizer", () => {
    expect(thresholdMarks("loss", [stage("muonclip", 30)])).toEqual([]);
    expect(thresholdMarks("max-logit", [undefined, { config: {} }])).toEqual([]);
  });
});
