import { describe, expect, it } from "vitest";

import { barsOf, corpusOf, histogramOf, rejectionsOf } from "./corpus-shape";
import { marksOf, readRewrite } from "./rewrite-shape";
import { componentsOf, piecesOf, versionsOf } from "./rollout-shape";
import { readSchema } from "./schema-shape";
import { pieces, spanOf, starts } from "./spans";
import { clausesOf, difference, turnsOf } from "./trajectory-shape";

describe("spans", () => {
  it("count characters as Python does", () => {
    expect(pieces("a😀bc", [{ id: 1, span: [2, 3] }])).toEqual([{ text: "a😀", marks: [] }, { text: "b", marks: [1] }, { text: "c", marks: [] }]);
  });
  it("overlap, touch the ends and stay inside", () => {
    expect(pieces("abcd", [{ id: 1, span: [0, 3] }, { id: 2, span: [2, 99] }])).toEqual([
      { text: "ab", marks: [1] }, { text: "c", marks: [1, 2] }, { text: "d", marks: [2] },
    ]);
  });
  it("are moved to the part that is shown", () => {
    expect(pieces("cd", [{ id: 1, span: [3, 4] }], 2)).toEqual([{ text: "c", marks: [] }, { text: "d", marks: [1] }]);
    expect(pieces("", [{ id: 1, span: [0, 4] }])).toEqual([]);
  });
  it("are nothing but two whole numbers", () => {
    expect([spanOf([1, 2]), spanOf([1]), spanOf([1, "2"]), spanOf([-1, 2]), spanOf(null)]).toEqual([[1, 2], null, null, null, null]);
  });
  it("find where parts begin, or say that they do not fit", () => {
    expect(starts("😀one two one", ["one", "one"])).toEqual([1, 9]);
    expect(starts("one two", ["two", "one"])).toBeNull();
  });
});

describe("readRewrite", () => {
  const row = { source_text: "A 1. B 2. C.", text: "a 1. b 3.", chunks: [{ source: "A 1.", text: "a 1.", tries: 1 }, { source: "B 2.", text: "b 3.", tries: 3 }],
    faults: [{ kind: "number", layer: "rules", detail: "2 is missing", source_span: [7, 8], text_span: [7, 8] }], scores: { likeness: 0.9, note: "x" } };
  it("aligns chunks, and shows what of the source was not reached", () => {
    expect(readRewrite(row).chunks.map(({ source, text, tries }) => [source, text, tries])).toEqual([["A 1.", "a 1.", 1], ["B 2.", "b 3.", 3], [" C.", "", null]]);
    expect(readRewrite(row).scores).toEqual([["likeness", 0.9]]);
    expect(marksOf(readRewrite(row).faults, "text")).toEqual([{ id: 1, span: [7, 8] }]);
  });
  it("shows whole texts where chunks are not in them, and survives anything", () => {
    expect(readRewrite({ ...row, text: "other" }).chunks).toHaveLength(1);
    for (const raw of [{}, { chunks: 3, faults: [1, { source_span: "x" }], scores: [] }]) expect(readRewrite(raw).chunks).toHaveLength(1);
  });
});

describe("trajectories", () => {
  const call = (id: string, name: string, args: string) => ({ id, type: "function", function: { name, arguments: args } });
  const row = {
    messages: [
      { role: "system", content: "You help." }, { role: "user", content: [{ type: "text", text: "Move it" }] },
      { role: "assistant", content: null, tool_calls: [call("c0", "move", '{"id": 1}'), call("c1", "look", "{}")] },
      { role: "tool", tool_call_id: "c0", content: '{"ok": true}' }, { role: "tool", tool_call_id: "c1", content: "plain" }, { role: "tool", tool_call_id: "lost", content: "?" },
    ],
    calls: [{ tool: "move", arguments: { id: 1 }, answer: { ok: true }, ok: true, fault: "timeout", changes: [{ entity: "box", id: 1, before: { at: "a" }, after: { at: "b" } }], is_real: false }],
    task: { rubric: [{ id: "moved", text: "It moved", kind: "state", mandatory: true }, { id: "kind", text: "Kind", kind: "judge", mandatory: false }] },
    verdicts: [{ clause: "moved", passed: true, by: "state", why: "at b" }, { clause: "new", passed: false, by: "check", why: "no" }],
  };
  it("puts answers beside their calls", () => {
    const turns = turnsOf(row);
    expect(turns.map((turn) => turn.role)).toEqual(["system", "user", "assistant", "tool"]);
    expect(turns[1]?.text).toBe("Move it");
    expect(turns[2]?.calls.map(({ tool, args, answer, ok, fault }) => ({ tool, args, answer, ok, fault }))).toEqual([
      { tool: "move", args: { id: 1 }, answer: { ok: true }, ok: true, fault: "timeout" }, { tool: "look", args: {}, answer: "plain", ok: null, fault: null },
    ]);
    expect(turns[2]?.calls[0]?.changes).toHaveLength(1);
  });
  it("puts verdicts beside clauses", () => {
    expect(clausesOf(row).map(({ id, passed, mandatory }) => [id, passed, mandatory])).toEqual([["moved", true, true], ["kind", null, false], ["new", false, true]]);
  });
  it("says what differs between two worlds", () => {
    const before = { box: [{ box_id: 1, at: "a", size: 2 }, { box_id: 2, at: "a", size: 3 }], shelf: [{ shelf_id: 1 }] };
    const after = { box: [{ box_id: 1, at: "b", size: 2 }, { box_id: 3, at: "c", size: 1 }], shelf: [{ shelf_id: 1 }] };
    expect(difference(before, after)).toEqual([
      { entity: "box", id: "1", before: { at: "a" }, after: { at: "b" } },
      { entity: "box", id: "2", before: { box_id: 2, at: "a", size: 3 }, after: null },
      { entity: "box", id: "3", before: null, after: { box_id: 3, at: "c", size: 1 } },
    ]);
  });
  it("survives anything", () => {
    for (const raw of [{}, { messages: "x" }, { messages: [1, { role: 3, tool_calls: [{}] }], calls: {}, verdicts: 1 }]) {
      expect(Array.isArray(turnsOf(raw))).toBe(true);
      expect(Array.isArray(clausesOf(raw))).toBe(true);
    }
    expect(difference(null, [1])).toEqual([]);
  });
});

describe("readSchema", () => {
  it("lists parameters with what they may be, nested ones below their parent", () => {
    const schema = { type: "object", required: ["unit"], properties: { unit: { type: "string", enum: ["a", "b"], description: "Which" }, at: { type: "object", properties: { x: { type: ["integer", "null"], minimum: 1 } } }, all: { type: "array", items: { type: "string" } }, any: { anyOf: [{ type: "string" }, { type: "number" }] } } };
    expect(readSchema(schema).map(({ name, depth, type, required, about, limits }) => [name, depth, type, required, about, limits])).toEqual([
      ["unit", 0, "string", true, "Which", "one of a, b"], ["at", 0, "object", false, "", ""], ["x", 1, "integer or null", false, "", "at least 1"],
      ["all", 0, "list of string", false, "", ""], ["any", 0, "string or number", false, "", ""],
    ]);
  });
  it("survives what is no schema, and what refers to itself", () => {
    const circle: Record<string, unknown> = { type: "object" };
    circle.properties = { again: circle };
    expect(readSchema(null)).toEqual([]);
    expect(readSchema({ properties: { x: true } })).toHaveLength(1);
    expect(readSchema(circle).length).toBeLessThan(20);
  });
});

describe("corpora", () => {
  it("adds up sources, and says why documents went", () => {
    const corpus = corpusOf({
      train_documents: 8, train_bytes: 800, heldout_documents: 1, heldout_bytes: 90, domains: { code: { train_documents: 8, train_bytes: 800, heldout_documents: 1, heldout_bytes: 90 } },
      sources: [{ name: "s", domain: "code", licence: "MIT", train: { documents: 8, bytes: 800 }, heldout: { documents: 1, bytes: 90 }, duplicate: { documents: 2, bytes: 20 } }],
      curation: { sources: { s: { kept: { documents: 11, bytes: 1000 }, "language.de": { documents: 3, bytes: 30 } } }, notes: { "email.masked": 4 } },
    });
    expect(corpus.fates).toEqual([["train", 8], ["language.de", 3], ["duplicate", 2], ["heldout", 1]]);
    expect(corpus.domains[0]).toMatchObject({ name: "code", documents: 9, bytes: 890 });
    expect(corpus.licences).toEqual([["MIT", 890]]);
    expect(corpus.notes).toEqual([["email.masked", 4]]);
    expect(corpusOf({}).sources).toEqual([]);
    expect(corpusOf({}).histograms).toEqual([]);
  });
  it("counts what was not taken by reason, a column a domain or a source", () => {
    const source = (name: string, domain: string, rejected: Record<string, number>) => ({ name, domain, ...Object.fromEntries(Object.entries(rejected).map(([reason, documents]) => [reason, { documents, bytes: 1 }])) });
    const { sources } = corpusOf({ sources: [source("a", "web", { duplicate: 2, short: 1 }), source("b", "code", { duplicate: 4 }), source("c", "web", { short: 3 }), source("d", "web", {})] });
    expect(rejectionsOf(sources, ({ domain }) => domain)).toEqual({ columns: ["web", "code"], rows: [{ reason: "duplicate", total: 6, counts: [2, 4] }, { reason: "short", total: 4, counts: [4, 0] }] });
    expect(rejectionsOf(sources, ({ name }) => name)).toEqual({ columns: ["a", "b", "c"], rows: [{ reason: "duplicate", total: 6, counts: [2, 4, 0] }, { reason: "short", total: 4, counts: [1, 0, 3] }] });
  });
  it("gives bars their share of the longest", () => {
    expect(barsOf([["a", 4], ["b", 1]])).toEqual([{ name: "a", count: 4, length: 1, share: 0.8 }, { name: "b", count: 1, length: 0.25, share: 0.2 }]);
    expect(barsOf([["a", 0]])).toEqual([{ name: "a", count: 0, length: 0, share: 0 }]);
  });
});

describe("distributions of a corpus", () => {
  it("are bins with their domains, without the empty ones at both ends", () => {
    const raw = { title: "Words a document", edges: [8, 16, 32], domains: { code: [0, 1, 0, 0], web: [0, 2, 5, 0] } };
    const [histogram] = histogramOf("words", raw);
    expect(histogram?.domains).toEqual(["code", "web"]);
    expect(histogram?.bins).toEqual([
      { label: "8 to 16", counts: [1, 2], total: 3 },
      { label: "16 to 32", counts: [0, 5], total: 5 },
    ]);
    expect(histogramOf("words", { edges: [8], domains: { web: [0, 0] } })).toEqual([]);
  });
});

describe("rollouts", () => {
  const row = {
    versions: [4, 3, 4], components: { format: 0, correct: 1, budget_penalty: -1.5 },
    segments: [{ source: "prompt", text: "2 + 2 =", tokens: 5 }, { source: "policy", text: "4", tokens: 2, policy_version: 3, temperature: 1, ending: "stop", mean_logprob: -0.25 }],
  };
  it("know which version of the policy drew what", () => {
    expect(versionsOf(row)).toEqual([3, 4]);
    expect(piecesOf(row).map(({ version, logprob }) => [version, logprob])).toEqual([[null, null], [3, -0.25]]);
  });
  it("show what weighs most first, and survive anything", () => {
    expect(componentsOf(row).map(([name]) => name)).toEqual(["budget_penalty", "correct", "format"]);
    for (const raw of [{}, { segments: 3, versions: "x", components: [1] }]) expect([piecesOf(raw), versionsOf(raw), componentsOf(raw)]).toEqual([[], [], []]);
  });
});
