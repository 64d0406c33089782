import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { useState } from "react";
import { toast } from "sonner";

import { type TokenOut, tokensRevoke } from "@/api";
import { tokensListOptions } from "@/api/@tanstack/react-query.gen";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { CreateToken } from "@/features/tokens/create-token";
import { cn } from "@/lib/cn";
import { ago, span } from "@/lib/format";
import { useShortcuts } from "@/lib/keys";
import { useNow } from "@/lib/now";
import { usePageTitle } from "@/lib/page-title";
import { toProblem } from "@/lib/problem";

export function TokensPage() {
  usePageTitle("Tokens");
  const tokens = useQuery(tokensListOptions({ query: { limit: 200 } }));
  const [isCreating, setIsCreating] = useState(false);
  const [revoking, setRevoking] = useState<TokenOut | null>(null);
  useShortcuts("Tokens", { n: ["New token", () => setIsCreating(true)] });
  return (
    <div className="flex flex-col">
      <div className="flex items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="text-lg font-semibold">Tokens</h1>
        <div className="flex-1" />
        <Button look="primary" onClick={() => setIsCreating(true)}>
          <Plus /> New token
        </Button>
      </div>
      {tokens.error && <div className="p-4"><ProblemNotice error={tokens.error} /></div>}
      {tokens.isPending && <SkeletonLines count={6} className="p-4" />}
      {tokens.data?.items.length === 0 && <Empty title="No tokens" command="abruzzi tokens create ci --role member" />}
      {tokens.data && tokens.data.items.length > 0 && (
        <Table label="Tokens">
          <thead>
            <tr>
              <Head>Name</Head>
              <Head>Role</Head>
              <Head>Project</Head>
              <Head right>Made</Head>
              <Head right>Last used</Head>
              <Head right>Expires</Head>
              <Head className="w-px">
                <span className="sr-only">Actions</span>
              </Head>
            </tr>
          </thead>
          <tbody>
            {tokens.data.items.map((token) => (
              <Row key={token.id} token={token} onRevoke={setRevoking} />
            ))}
          </tbody>
        </Table>
      )}
      <CreateToken open={isCreating} onClose={() => setIsCreating(false)} />
      {revoking && <RevokeDialog token={revoking} onClose={() => setRevoking(null)} />}
    </div>
  );
}

function Row({ token, onRevoke }: { token: TokenOut; onRevoke: (token: TokenOut) => void }) {
  const now = useNow();
  const left = (Date.parse(token.expires_at) - now) / 1000;
  const isDead = token.revoked_at !== null || left <= 0;
  return (
    <tr className={cn(isDead && "text-muted")}>
      <Cell className="font-medium">{token.name}</Cell>
      <Cell>{token.role}</Cell>
      <Cell className="text-muted">{token.project_id}</Cell>
      <Cell right className="text-muted">{ago(token.created_at, now)}</Cell>
      <Cell right className="text-muted">{token.last_used_at ? ago(token.last_used_at, now) : "never"}</Cell>
      <Cell right className="text-muted">{token.revoked_at ? "revoked" : left <= 0 ? "expired" : `in ${span(left)}`}</Cell>
      <Cell>
        {!isDead && (
          <Button look="ghost" onClick={() => onRevoke(token)}>
            Revoke
          </Button>
        )}
      </Cell>
    </tr>
  );
}

function RevokeDialog({ token, onClose }: { token: TokenOut; onClose: () => void }) {
  const queryClient = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => tokensRevoke({ path: { token_id: token.id }, throwOnError: true }),
    onSuccess: () => {
      toast(`${token.name} is revoked.`);
      return queryClient.invalidateQueries({ queryKey: [{ _id: "tokensList" }] });
    },
    onError: (error) => toast.error(toProblem(error).detail, { description: toProblem(error).hint ?? undefined }),
    onSettled: onClose,
  });
  return (
    <Dialog title={`Revoke ${token.name}?`} open onClose={onClose}>
      <p className="text-muted">Whatever uses it is refused from now on. It cannot be brought back; make a new one instead. Runs go on.</p>
      <DialogActions>
        <Button look="ghost" data-first onClick={onClose}>
          Keep it
        </Button>
        <Button look="danger" disabled={revoke.isPending} onClick={() => revoke.mutate()}>
          Revoke
        </Button>
      </DialogActions>
    </Dialog>
  );
}
