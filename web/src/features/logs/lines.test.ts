import { describe, expect, it } from "vitest";

import { highlight, severity, visibleText } from "./lines";

describe("visibleText", () => {
  it("folds carriage returns to the last state", () => {
    expect(visibleText("10%\r50%\r100%")).toBe("100%");
    expect(visibleText("done\r\r")).toBe("done");
  });
  it("drops terminal escapes", () => {
    expect(visibleText("\x1b[1;31mred\x1b[0m plain \x1b]0;title\x07")).toBe("red plain ");
  });
  it("leaves markup as text", () => {
    expect(visibleText("<b>&amp;</b>")).toBe("<b>&amp;</b>");
  });
});

describe("highlight", () => {
  it("finds every occurrence in any case and loses nothing", () => {
    const pieces = highlight("Loss LOSS glossy", "loss");
    expect(pieces.filter((p) => p.hit).map((p) => p.text)).toEqual(["Loss", "LOSS", "loss"]);
    expect(pieces.map((p) => p.text).join("")).toBe("Loss LOSS glossy");
  });
  it("takes the query literally, also after letters whose lower case is longer", () => {
    const pieces = highlight("İİİ [a.b] axb", "[A.B]");
    expect(pieces.filter((p) => p.hit).map((p) => p.text)).toEqual(["[a.b]"]);
    expect(pieces.map((p) => p.text).join("")).toBe("İİİ [a.b] axb");
  });
});

describe("severity", () => {
  it("tells errors and warnings from the rest", () => {
    expect([severity("ValueError: x"), severity("Error: x"), severity("UserWarning"), severity("warning: x"), severity("step 3")]).toEqual(["bad", "bad", "warn", "warn", "plain"]);
  });
});
