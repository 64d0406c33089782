/** A stage's drawing is shown as an image, never as a part of the page: scripts in it do not run, and it fetches nothing. */

export const imageAddress = (svg: string): string => `data:image/svg+xml,${encodeURIComponent(svg)}`;

const SHARPNESS = 2;

/** As a PNG of twice the size, for slides and papers. */
export async function savePng(svg: string, name: string): Promise<void> {
  const image = new Image();
  image.src = imageAddress(svg);
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = SHARPNESS * image.naturalWidth;
  canvas.height = SHARPNESS * image.naturalHeight;
  canvas.getContext("2d")?.drawImage(image, 0, 0, canvas.width, canvas.height);
  const link = document.createElement("a");
  link.href = canvas.toDataURL("image/png");
  link.download = name;
  link.click();
}
