import "./styles.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "@/app/app";
import { readAddress } from "@/features/session/arrival";
import { configureApi } from "@/lib/api";

configureApi();
const arrival = readAddress();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App arrival={arrival} />
    </StrictMode>,
  );
}
