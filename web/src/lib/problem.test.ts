import { describe, expect, it } from "vitest";

import { isPassing, toProblem } from "./problem";

describe("an error as a problem", () => {
  it.each(["Failed to fetch", "NetworkError when attempting to fetch resource.", "Load failed"])("%s means that nobody answered", (message) => {
    expect(toProblem(new TypeError(message)).code).toBe("unreachable");
  });
  it("a request that was given up means that nobody answered", () => {
    expect(toProblem(new DOMException("signal timed out", "TimeoutError")).code).toBe("unreachable");
  });
  it.each([502, 503, 504])("%i from a proxy passes by itself", (status) => {
    expect(isPassing(toProblem("", new Response(null, { status })))).toBe(true);
  });
  it("any other TypeError is a mistake of the page", () => {
    expect(toProblem(new TypeError("n.map is not a function")).code).toBe("page_error");
  });
});
