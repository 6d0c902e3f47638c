// Open every page of a site in Chromium, light and dark, wide and narrow, and print what is wrong as JSON.
//
//   node check.mjs SITE [CHROMIUM]
//
// Per page and view: violations that axe-core finds (with everything unfolded), what it cannot decide, texts of too
// little contrast among these, what was loaded from elsewhere than the site, errors on the console, how far the page
// is wider than its window, and focusable parts without an outline.
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { browser, open } from "./browser.mjs";

const site = resolve(process.argv[2]);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const views = [
  { colorScheme: "light", width: 1200 },
  { colorScheme: "dark", width: 1200 },
  { colorScheme: "light", width: 390 },
];

const chromium = await browser(process.argv[3]);
const found = [];
for (const name of readdirSync(site).filter((file) => file.endsWith(".html")).sort()) {
  for (const { colorScheme, width } of views) {
    // The pages forbid scripts; axe-core is one, so the policy is lifted for it, on a second visit.
    const seen = { page: name, colorScheme, width, elsewhere: [], errors: [] };
    const page = await open(chromium, { colorScheme, viewport: { width, height: 800 } });
    const home = pathToFileURL(site).href;
    page.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(home) && !url.startsWith("data:")) seen.elsewhere.push(url);
    });
    page.on("requestfailed", (request) => seen.errors.push(`not loaded: ${request.url()}`));
    page.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
    page.on("dialog", (dialog) => seen.errors.push(`a script ran: ${dialog.message()}`) && dialog.dismiss());
    await page.goto(pathToFileURL(join(site, name)).href, { waitUntil: "load" });
    const images = await page.locator("img").count();
    for (let place = 0; place < images; place += 1) await page.locator("img").nth(place).scrollIntoViewIfNeeded();
    seen.images = images;
    seen.broken = await page.evaluate(
      () => [...document.images].filter((image) => !image.complete || !image.naturalWidth).map((image) => image.src),
    );
    seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    seen.unmarked = colorScheme === "light" && width === views[0].width ? await unmarked(page) : [];
    await page.context().close();

    const examined = await open(chromium, { colorScheme, viewport: { width, height: 800 }, bypassCSP: true });
    await examined.goto(pathToFileURL(join(site, name)).href, { waitUntil: "load" });
    await examined.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
    await examined.addScriptTag({ content: axe });
    const result = await examined.evaluate(() => window.axe.run({ resultTypes: ["violations", "incomplete"] }));
    const brief = (rule) => ({ rule: rule.id, impact: rule.impact, nodes: rule.nodes.map((node) => node.html.slice(0, 200)) });
    seen.violations = result.violations.map(brief);
    const contrasts = result.incomplete.filter((rule) => rule.id === "color-contrast").flatMap((rule) => rule.nodes);
    seen.incomplete = result.incomplete.filter((rule) => rule.id !== "color-contrast").map(brief);
    seen.pale = await examined.evaluate(pale, contrasts.map((node) => node.target[0]));
    seen.computed = contrasts.length;
    seen.passes = result.passes.length;
    await examined.context().close();
    found.push(seen);
  }
}
await chromium.close();
console.log(JSON.stringify(found, null, 1));

// Return those parts of the page whose text has too little contrast with what may lie behind it: the first opaque
// colour of it and its ancestors, under every colour of a gradient on the way. axe-core computes no such contrast.
function pale(selectors) {
  const point = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (...colours) => {
    point.clearRect(0, 0, 1, 1);
    for (const colour of colours) [point.fillStyle, point.globalAlpha] = [colour, 1], point.fillRect(0, 0, 1, 1);
    return [...point.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const known = new Map();
  const ratio = (...colours) => {
    const key = colours.join("|");
    if (!known.has(key)) {
      const [low, high] = [over(...colours), over(...colours.slice(0, -1))].map(light).sort((a, b) => a - b);
      known.set(key, (high + 0.05) / (low + 0.05));
    }
    return known.get(key);
  };
  return selectors.flatMap((selector) => {
    const part = document.querySelector(selector);
    const { color, fontSize, fontWeight } = getComputedStyle(part);
    const large = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24);
    const plain = [], tints = [[]];
    for (let at = part; at; at = at.parentElement) {
      const { backgroundColor, backgroundImage } = getComputedStyle(at);
      const stops = backgroundImage.match(/(rgba?|color|oklab|oklch)\([^()]*\)/g) ?? [];
      tints.push(...stops.map((stop) => [stop]));
      plain.unshift(backgroundColor);
      if (over(backgroundColor)[3] === 255) break;
    }
    const least = Math.min(...tints.map((tint) => ratio("white", ...plain, ...tint, color)));
    return least < (large ? 3 : 4.5) ? [`${least.toFixed(2)}: ${part.outerHTML.slice(0, 160)}`] : [];
  });
}

// Go through the page with the Tab key; return what takes the focus without showing it.
async function unmarked(page) {
  const missing = [];
  await page.evaluate(() => window.scrollTo(0, 0));
  for (let step = 0; step < 40; step += 1) {
    await page.keyboard.press("Tab");
    const problem = await page.evaluate(() => {
      const part = document.activeElement;
      if (part === document.body) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(part);
      return outlineStyle === "none" || outlineWidth === "0px" ? part.outerHTML.slice(0, 120) : null;
    });
    if (problem) missing.push(problem);
  }
  return missing;
}
