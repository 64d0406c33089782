import { expect, test } from "vitest";

import { lossText, readStudy } from "./study-shape";

const point = { tokens: 64_000, flops: 1.5e11, seeds: { 0: 4.1, 1: 4.2 }, value: 4.15, low: 4.0, high: 4.3, max_logit: { value: 31.4, low: null, high: null } };
const written = {
  title: "Experts",
  study: { key: "sparsity", section: "2.3", finding: "more is better", conditions: "large" },
  claims: [{ claim: "It falls.", ours: "It does.", verdict: "agrees" }],
  measure: "loss",
  seeds: 2,
  arms: { few: { label: "8 experts", parameters: 1000, active_parameters: 500, points: [point] } },
};

test("a study says what the paper found, what ours came to, and each arm at each budget", () => {
  const study = readStudy(written);
  expect(study?.paper?.finding).toBe("more is better");
  expect(study?.claims).toEqual([{ claim: "It falls.", ours: "It does.", verdict: "agrees" }]);
  expect(study?.arms).toEqual([{ label: "8 experts", parameters: 1000, active: 500, points: [{ tokens: 64_000, flops: 1.5e11, loss: { value: 4.15, low: 4.0, high: 4.3 }, logit: 31.4 }] }]);
  expect(lossText({ value: 4.15, low: 4, high: 4.3 })).toBe("4.150 [4.000, 4.300]");
  expect(lossText({ value: 4.15, low: null, high: null })).toBe("4.150");
});

test("a comparison of questions has no table of losses, one of one's own no paper, and what is damaged is passed over", () => {
  expect(readStudy({ arms: { raw: { label: "raw", chosen: {} } }, items: {} })).toEqual({ title: "Arms compared", paper: null, claims: [], arms: [], seeds: 0 });
  expect(readStudy({ ...written, claims: "none", arms: { few: { points: [{ tokens: "many" }, 7] } } })?.arms).toEqual([{ label: "", parameters: 0, active: 0, points: [] }]);
  expect(readStudy({ arms: [] })).toBeNull();
  expect(readStudy(null)).toBeNull();
});
