import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { use, useState } from "react";

import { sessionCreate } from "@/api";
import { sessionMethodsOptions } from "@/api/@tanstack/react-query.gen";
import { Logo } from "@/app/logo";
import { Button, buttonClass } from "@/components/ui/button";
import { Code } from "@/components/ui/code";
import { Field, Input } from "@/components/ui/field";
import { ProblemNotice } from "@/components/ui/notice";
import { ApiProblem } from "@/lib/problem";

import { ArrivalContext } from "./arrival";

export function SignIn() {
  const arrival = use(ArrivalContext);
  const queryClient = useQueryClient();
  const provider = useQuery(sessionMethodsOptions()).data?.single_sign_on;
  const [token, setToken] = useState("");
  const signIn = useMutation({
    mutationFn: () => sessionCreate({ body: { token: token.trim() }, throwOnError: true }),
    onSuccess: () => queryClient.invalidateQueries(),
  });
  const problem = signIn.error ?? (arrival.problem && !signIn.isPending ? new ApiProblem(arrival.problem) : null);
  return (
    <main className="mx-auto flex min-h-full w-full max-w-sm flex-col justify-center gap-5 px-5 py-12">
      <div className="flex items-center gap-2">
        <Logo className="size-7" />
        <h1 className="text-xl font-semibold tracking-tight">Abruzzi</h1>
      </div>
      {provider && (
        <a
          className={buttonClass("primary", "h-8")}
          href={`/api/v1/session/oidc?next=${encodeURIComponent(location.pathname + location.search)}`}
        >
          Sign in with {provider}
        </a>
      )}
      <form
        className="flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          signIn.mutate();
        }}
      >
        <Field label="Token" htmlFor="token">
          <Input
            id="token"
            type="password"
            value={token}
            required
            placeholder="abruzzi_…"
            className="h-8 font-mono"
            autoComplete="current-password"
            onChange={(event) => setToken(event.target.value)}
          />
        </Field>
        <Button type="submit" look={provider ? "plain" : "primary"} className="h-8" disabled={signIn.isPending || !token.trim()}>
          {signIn.isPending ? "Signing in" : provider ? "Sign in with this token" : "Sign in"}
        </Button>
        {problem && <ProblemNotice error={problem} />}
      </form>
      <div className="flex flex-col gap-2 border-t border-line pt-4 text-muted">
        <p>
          The platform wrote the administrator's token into <code className="font-mono text-sm text-text">~/.abruzzi/token</code> at its first start. On its machine:
        </p>
        <Code text="cat ~/.abruzzi/token" />
        <p>
          <code className="font-mono text-sm text-text">abruzzi up</code> prints an address that signs you in by itself.
        </p>
      </div>
    </main>
  );
}
