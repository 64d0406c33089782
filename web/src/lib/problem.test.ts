import { describe, expect, it } from "vitest";

import { toProblem } from "./problem";

describe("an error as a problem", () => {
  it.each(["Failed to fetch", "NetworkError when attempting to fetch resource.", "Load failed"])("%s means that nobody answered", (message) => {
    expect(toProblem(new TypeError(message)).code).toBe("unreachable");
  });
  it("any other TypeError is a mistake of the page", () => {
    expect(toProblem(new TypeError("n.map is not a function")).code).toBe("page_error");
  });
});
