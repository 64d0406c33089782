import js from "@eslint/js";
import a11y from "eslint-plugin-jsx-a11y";
import hooks from "eslint-plugin-react-hooks";
import globals from "globals";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist", "node_modules", "src/api"] },
  { files: ["public/*.js"], languageOptions: { globals: globals.browser } },
  js.configs.recommended,
  ...tseslint.configs.strict,
  {
    files: ["**/*.{ts,tsx}"],
    plugins: { "react-hooks": hooks, "jsx-a11y": a11y },
    languageOptions: { globals: globals.browser },
    rules: {
      ...hooks.configs["recommended-latest"].rules,
      ...a11y.flatConfigs.strict.rules,
      "max-lines": ["error", 250],
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "What stages print is data: render it as text." },
        { selector: "Literal[value=/^#[0-9a-f]{3,8}$/i]", message: "Colours are tokens (src/styles.css)." },
      ],
      // The next two are advice for the React Compiler, which this build does not use.
      "react-hooks/incompatible-library": "off",
      "react-hooks/immutability": "off",
      "@typescript-eslint/no-import-type-side-effects": "error",
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
    },
  },
);
