// The system's Chromium, without anything that talks to the outside by itself.
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PATIENCE = 300_000; // milliseconds
const usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export async function browser(path) {
  const executablePath = path || process.env.CHROMIUM || usual.find(existsSync);
  if (!executablePath) {
    console.error(`No Chromium at ${usual.join(", ")}. Install it (Debian: chromium), or set CHROMIUM to its path.`);
    process.exit(1);
  }
  const args = ["--no-sandbox", "--headless", "--disable-gpu", "--disable-background-networking"];
  return chromium.launch({ executablePath, args, timeout: PATIENCE });
}

// A page in a context of its own, on a machine that may be busy.
export async function open(chromium, options) {
  const context = await chromium.newContext(options);
  context.setDefaultTimeout(PATIENCE);
  return context.newPage();
}
