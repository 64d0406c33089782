import { useQuery } from "@tanstack/react-query";

import type { ArtifactOut } from "@/api";
import { artifactsManifestOptions } from "@/api/@tanstack/react-query.gen";
import { CopyButton } from "@/components/ui/copy";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { bytes } from "@/lib/format";

/** What an artifact consists of; each file can be downloaded. */
export function Files({ artifact }: { artifact: ArtifactOut }) {
  const manifest = useQuery(artifactsManifestOptions({ path: { artifact_id: artifact.id } }));
  if (manifest.error) return <ProblemNotice error={manifest.error} />;
  if (!manifest.data) return <SkeletonLines count={4} />;
  return (
    <>
      <div className="-mx-4">
        <Table label="Files">
          <thead>
            <tr>
              <Head>File</Head>
              <Head right>Size</Head>
              <Head>SHA-256</Head>
            </tr>
          </thead>
          <tbody>
            {manifest.data.files.map((file) => (
              <tr key={file.path}>
                <Cell>
                  <a className="font-mono text-sm text-accent hover:underline" href={fileAddress(artifact.id, file.path)} download>
                    {file.path}
                  </a>
                </Cell>
                <Cell right>{bytes(file.size_bytes)}</Cell>
                <Cell className="font-mono text-sm text-muted">
                  <span className="inline-flex items-center gap-1">
                    {file.digest.replace("sha256:", "").slice(0, 12)}
                    <CopyButton text={file.digest} label={`Copy the digest of ${file.path}`} small />
                  </span>
                </Cell>
              </tr>
            ))}
          </tbody>
        </Table>
      </div>
      <p className="mt-3 text-sm break-all text-muted">
        Manifest <span className="font-mono">{artifact.manifest_key}</span>
      </p>
    </>
  );
}

export const fileAddress = (artifactId: string, path: string): string =>
  `/api/v1/artifacts/${artifactId}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
