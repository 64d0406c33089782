import { describe, expect, it } from "vitest";

import { readReport } from "./report-shape";

const domain = { documents: 3, bytes: 900, bits_per_byte: { value: 1.9, low: 1.8, high: 2 } };

describe("readReport", () => {
  it("reads a report with everything, the whole first", () => {
    const report = readReport({
      step: 600, tokens: 1e6, ngram_order: 4, samples: [{ prompt: "The ", text: "end" }],
      held_out: { code: domain, all: { ...domain, ngram_bits_per_byte: { value: 2.2, low: 2.1, high: 2.3 }, better_by: { value: 0.3, low: 0.2, high: 0.4 } } },
      cloze: { items: 10, chance: 0.25, accuracy: { value: 0.5, low: 0.3, high: 0.7 }, relations: { capital: { items: 10, accuracy: { value: 0.5, low: 0.3, high: 0.7 } } } },
    });
    expect(report?.domains.map((d) => d.name)).toEqual(["all", "code"]);
    expect(report?.domains[0]?.betterBy?.value).toBe(0.3);
    expect(report?.domains[1]?.ngram).toBeNull();
    expect(report?.cloze?.relations).toHaveLength(1);
  });
  it("survives what it does not know", () => {
    for (const raw of [null, 7, [], "x", {}, { held_out: 3 }]) expect(readReport(raw)).toBeNull();
    expect(readReport({ held_out: { a: 1, b: { bits_per_byte: "no" } }, cloze: [], samples: "x" })).toMatchObject({ domains: [], cloze: null, samples: [] });
  });
});
