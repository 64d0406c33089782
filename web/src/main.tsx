import "./styles.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { App } from "@/app/app";
import { takeTokenFromAddress } from "@/features/session/sign-in";
import { configureApi } from "@/lib/api";

configureApi();
const arrival = takeTokenFromAddress();
const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <App arrival={arrival} />
    </StrictMode>,
  );
}
