/** Recipes of the repository, built into the page, so that a first run is one click away. */

const FILES = import.meta.glob<string>(["../../../../recipes/*.toml", "../../../../recipes/studies/*.toml"], { query: "?raw", import: "default", eager: true });

export type Shipped = { readonly name: string; readonly toml: string };

export const SHIPPED: readonly Shipped[] = Object.entries(FILES)
  .map(([path, toml]) => ({ name: path.replace(/^.*\/recipes\/(.*)\.toml$/, "$1"), toml }))
  .sort((a, b) => Number(b.name === "tiny") - Number(a.name === "tiny") || a.name.localeCompare(b.name));
