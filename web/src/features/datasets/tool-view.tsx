import { Cell, Head, Table } from "@/components/ui/table";
import { type Json, recordOf, recordsOf, textOf } from "@/lib/unknown";

import { JsonView } from "./json-view";
import { readSchema } from "./schema-shape";

/** A tool as an agent sees it, and, of a synthetic one, how it acts on its world. */
export function ToolView({ row }: { row: Json }) {
  const simulation = recordOf(row.simulation);
  const operation = recordOf(simulation.operation);
  const entities = recordsOf(recordOf(simulation.state).entities);
  return (
    <div className="flex flex-col gap-5 py-3">
      <div className="px-4">
        <h2 className="font-mono text-lg font-medium">{textOf(row.name)}</h2>
        <p className="mt-1 max-w-3xl break-words whitespace-pre-wrap">{textOf(row.description)}</p>
      </div>
      <Schema title="Arguments" schema={row.input_schema} />
      {row.output_schema !== undefined && row.output_schema !== null && <Schema title="Answer" schema={row.output_schema} />}
      {"kind" in operation && (
        <section className="px-4" aria-label="In its world">
          <h3 className="font-medium">In its world</h3>
          <p className="text-muted">
            {[textOf(operation.kind), textOf(operation.verb), textOf(operation.entity), textOf(operation.field)].filter(Boolean).join(" ").replaceAll("_", " ")}
          </p>
          <Conditions title="It needs" conditions={simulation.preconditions} />
          <Conditions title="Afterwards" conditions={simulation.postconditions} />
        </section>
      )}
      {entities.length > 0 && (
        <section aria-label="State">
          <h3 className="mb-1 px-4 font-medium">State of its application</h3>
          <Table label="State">
            <thead>
              <tr>
                <Head>Table</Head>
                <Head>Fields</Head>
              </tr>
            </thead>
            <tbody>
              {entities.map((entity) => (
                <tr key={textOf(entity.name)}>
                  <Cell className="align-top font-medium">{textOf(entity.name)}</Cell>
                  <Cell className="text-sm">{recordsOf(entity.fields).map(fieldOf).join(", ")}</Cell>
                </tr>
              ))}
            </tbody>
          </Table>
        </section>
      )}
      <details className="px-4">
        <summary className="text-muted">As JSON</summary>
        <JsonView value={row} />
      </details>
    </div>
  );
}

function Schema({ title, schema }: { title: string; schema: unknown }) {
  const parameters = readSchema(schema);
  return (
    <section aria-label={title}>
      <h3 className="mb-1 px-4 font-medium">{title}</h3>
      {parameters.length === 0 ? (
        <p className="px-4 text-muted">None.</p>
      ) : (
        <Table label={`${title} of the tool`}>
          <thead>
            <tr>
              <Head>Name</Head>
              <Head>Type</Head>
              <Head>What it is</Head>
            </tr>
          </thead>
          <tbody>
            {parameters.map((parameter) => (
              <tr key={parameter.path}>
                <Cell className="align-top font-mono text-sm whitespace-nowrap" style={{ paddingLeft: `${1 + parameter.depth}rem` }}>
                  {parameter.name}
                  {parameter.required && <span className="text-bad" title="required"> *<span className="sr-only">required</span></span>}
                </Cell>
                <Cell className="align-top text-sm whitespace-nowrap text-muted">{parameter.type}</Cell>
                <Cell className="text-sm">
                  {parameter.about}
                  {parameter.limits && <span className="block text-muted">{parameter.limits}</span>}
                </Cell>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </section>
  );
}

function Conditions({ title, conditions }: { title: string; conditions: unknown }) {
  const texts = recordsOf(conditions).map((condition) => textOf(condition.text));
  if (texts.length === 0) return null;
  return (
    <>
      <h4 className="mt-2 text-sm text-muted">{title}</h4>
      <ul className="list-disc pl-4 marker:text-faint">
        {texts.map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
    </>
  );
}

const fieldOf = (field: Json): string => `${textOf(field.name)} (${textOf(field.entity) || textOf(field.kind)})`;
