import { isRecord, type Json, listOf, recordOf, textOf, written } from "@/lib/unknown";

/** A JSON Schema of a tool's arguments as a flat list for people. Pure. */

export type Parameter = { readonly path: string; readonly name: string; readonly depth: number; readonly type: string; readonly required: boolean; readonly about: string; readonly limits: string };

const DEEPEST = 4;
const LIMITS: readonly (readonly [string, string])[] = [
  ["minimum", "at least"], ["maximum", "at most"], ["exclusiveMinimum", "above"], ["exclusiveMaximum", "below"], ["minLength", "characters at least"], ["maxLength", "characters at most"],
  ["pattern", "like"], ["format", "format"], ["minItems", "items at least"], ["maxItems", "items at most"], ["default", "by default"],
];

export function readSchema(schema: unknown, path = "", depth = 0): Parameter[] {
  if (!isRecord(schema) || depth > DEEPEST) return [];
  const required = new Set(listOf(schema.required));
  return Object.entries(recordOf(schema.properties)).flatMap(([name, raw]): Parameter[] => {
    const one = recordOf(raw);
    const at = path ? `${path}.${name}` : name;
    const below = isRecord(one.items) && isRecord(one.items.properties) ? one.items : one;
    return [{ path: at, name, depth, type: typeOf(one), required: required.has(name), about: textOf(one.description), limits: limitsOf(one) }, ...readSchema(below, at, depth + 1)];
  });
}

function typeOf(schema: Json, depth = 0): string {
  if (depth > DEEPEST) return "any";
  const either = listOf(schema.anyOf ?? schema.oneOf).filter(isRecord);
  if (either.length > 0) return [...new Set(either.map((one) => typeOf(one, depth + 1)))].join(" or ");
  if (Array.isArray(schema.type)) return schema.type.map(String).join(" or ");
  if (schema.type === "array") return isRecord(schema.items) ? `list of ${typeOf(schema.items, depth + 1)}` : "list";
  if (typeof schema.$ref === "string") return schema.$ref.split("/").at(-1) ?? "any";
  if (typeof schema.type === "string") return schema.type;
  return schema.enum || "const" in schema ? "choice" : "any";
}

function limitsOf(schema: Json): string {
  const choices = listOf(schema.enum).map(written);
  return [
    ...(choices.length > 0 ? [`one of ${choices.join(", ")}`] : []),
    ...("const" in schema ? [`always ${written(schema.const)}`] : []),
    ...LIMITS.flatMap(([key, words]) => (schema[key] === undefined ? [] : [`${words} ${written(schema[key])}`])),
  ].join("; ");
}
