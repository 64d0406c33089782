import { defineConfig } from "@hey-api/openapi-ts";

export default defineConfig({
  input: "../api/abruzzi_api/openapi.json",
  output: { path: "src/api", clean: true },
  plugins: ["@hey-api/typescript", "@hey-api/client-fetch", "@hey-api/sdk", "@tanstack/react-query"],
});
