import { bytes, whole } from "@/lib/format";

/** A document as it is. */
export function TextView({ text }: { text: string }) {
  return (
    <div className="px-4 py-3">
      <p className="mb-2 text-sm text-muted">
        {whole([...text].length)} characters, {bytes(new TextEncoder().encode(text).length)}, {whole(text.split("\n").length)} lines
      </p>
      <pre className="max-w-4xl font-mono text-sm break-words whitespace-pre-wrap">{text}</pre>
    </div>
  );
}
