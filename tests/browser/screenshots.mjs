// Take the pictures of the documentation: node screenshots.mjs SITE FOLDER
import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browser, open } from "./browser.mjs";

const [site, folder] = process.argv.slice(2, 4).map((path) => resolve(path));
const views = [
  { name: "index", page: "index.html", colorScheme: "light", width: 1200, height: 900 },
  { name: "study-light", page: "persona_bias.html#across-datasets", colorScheme: "light", width: 1200, height: 900 },
  { name: "study-dark", page: "persona_bias.html#across-datasets", colorScheme: "dark", width: 1200, height: 900 },
  { name: "study-narrow", page: "persona_bias.html", colorScheme: "light", width: 360, height: 720 },
];

mkdirSync(folder, { recursive: true });
const chromium = await browser();
for (const { name, page, colorScheme, width, height } of views) {
  const tab = await open(chromium, { colorScheme, viewport: { width, height } });
  const [file, anchor] = page.split("#");
  await tab.goto(pathToFileURL(join(site, file)).href + (anchor ? `#${anchor}` : ""), { waitUntil: "load" });
  await tab.screenshot({ path: join(folder, `${name}.png`) });
  await tab.context().close();
}
await chromium.close();
