import { Code } from "@/components/ui/code";

const EXAMPLE = `name = "h800"
kind = "kubernetes"
flavor = "H800"
ranks_per_node = 8
rank = { cpus = 12.0, memory = "200 GiB", gpus = 1 }
quota = { cpus = 384.0, memory = "8 TiB", gpus = 32 }
node_labels = { "abruzzi.io/flavor" = "h800" }`;

/** How to define a pool, for somebody who has none but this machine. */
export function DefinePool() {
  return (
    <section aria-label="Define a pool" className="mx-auto mt-8 flex w-full max-w-xl flex-col gap-2 px-4">
      <h2 className="text-lg font-medium">Define a pool of GPU nodes</h2>
      <p className="text-muted">A pool is nodes of one flavor, with quota. Write what it is to a file, h800.toml, then apply it; recipes name it by resources.pool.</p>
      <Code text={EXAMPLE} />
      <Code text="abruzzi pools apply h800.toml" />
    </section>
  );
}
