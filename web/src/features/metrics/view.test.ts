import { describe, expect, it } from "vitest";

import { readPanels, readRange, writePanels } from "./view";

describe("zoom in the address", () => {
  it("is a range or nothing", () => {
    expect(readRange("120,480.5")).toEqual([120, 480.5]);
    for (const text of [undefined, "", "5", "9,3", "a,b", "1,2,3"]) expect(readRange(text)).toBeNull();
  });
});

describe("panels in the address", () => {
  it("survive writing and reading", () => {
    const panels = new Map([["loss", { log: true, smooth: 0.9, large: true }], ["lr", { log: false, smooth: undefined, large: undefined }]]);
    expect(readPanels(writePanels(panels))).toEqual(panels);
  });
  it("leave no trace when nothing differs", () => {
    expect(writePanels(new Map([["loss", {}]]))).toBeUndefined();
  });
});
