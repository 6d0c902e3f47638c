// Take the pictures of the documentation: node screenshots.mjs CHECKOUT FOLDER
//
// The site comes from build/site; JupyterLab is started as `make lab` does, and no notebook is saved.
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browser, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const [checkout, folder] = process.argv.slice(2, 4).map((path) => resolve(path));
const site = join(checkout, "build", "site");
const views = [
  { name: "index", page: "index.html", colorScheme: "light", width: 1200, height: 900 },
  { name: "study-dark", page: "sycophancy.html", colorScheme: "dark", width: 1200, height: 900 },
  { name: "study-narrow", page: "sycophancy.html", colorScheme: "light", width: 360, height: 720 },
];

mkdirSync(folder, { recursive: true });
const chromium = await browser();
let lab;
try {
  for (const { name, page, colorScheme, width, height } of views) {
    const tab = await open(chromium, { colorScheme, viewport: { width, height } });
    const [file, anchor] = page.split("#");
    await tab.goto(pathToFileURL(join(site, file)).href + (anchor ? `#${anchor}` : ""), { waitUntil: "load" });
    await tab.screenshot({ path: join(folder, `${name}.png`) });
    await tab.context().close();
  }
  lab = await serve(checkout);
  const tab = await open(chromium, { viewport: { width: 1200, height: 900 } });
  await tab.goto(lab.address("lab/tree/studies/sycophancy.ipynb"));
  await tab.locator(".jp-Notebook .jp-CodeCell").first().waitFor();
  await tab.getByText(/\| Idle$/).waitFor();
  await tab.screenshot({ path: join(folder, "jupyterlab.png") });
} finally {
  await chromium.close();
  await lab?.stop();
}
