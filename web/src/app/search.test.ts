import { describe, expect, it } from "vitest";

import { readCompareSearch, readDatasetSearch, readRunSearch, readRunsSearch } from "./search";

describe("state of the view in the address", () => {
  it("keeps what is valid and drops the rest", () => {
    expect(readRunsSearch({ q: "k2", state: ["failed", "nonsense"], sort: "loss", asc: true, sel: ["a", "a", 7], junk: 1 })).toEqual({
      q: "k2", state: ["failed"], sort: "loss", asc: true, sel: ["a", "7"],
    });
  });
  it("writes no defaults", () => {
    expect(readRunSearch({ x: "step", smooth: 0, log: false, line: -1 })).toEqual({});
  });
  it("survives a second reading unchanged", () => {
    const once = readCompareSearch({ runs: ["a", "b"], base: "a", x: "tokens", smooth: 0.9, zoom: "10,20" });
    expect(readCompareSearch(once)).toEqual(once);
  });
  it("takes one value for a list of one", () => {
    expect(readCompareSearch({ runs: "a" })).toEqual({ runs: ["a"] });
  });
  it("names what it dropped, so that the raw value in the address is hidden", () => {
    expect(Object.keys(readRunSearch({ tab: "nonsense" }))).toContain("tab");
  });
  it("takes an id of digits for a text", () => {
    expect(readRunSearch({ attempt: 1234567890 })).toEqual({ attempt: "1234567890" });
  });
  it("keeps conditions on rows that are conditions", () => {
    expect(readDatasetSearch({ tab: "rewrites", where: ["domain:code", "no condition", 7], fate: "kept" })).toEqual({ tab: "rewrites", where: ["domain:code"], fate: ["kept"] });
  });
});
