// Use a checkout's JupyterLab as a reader would and print what was seen as JSON.
//
//   node lab.mjs CHECKOUT STUDY LIVE [CHROMIUM]
//
// On the index STUDY is opened, run with changed parameters, and then with wrong ones. The notebook LIVE asks a
// model in its second code cell; it is stopped by the button, by the toolbar's square, and then left to end.
import { browser, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const [checkout, study, live, path] = process.argv.slice(2);
const lab = await serve(checkout);
const chromium = await browser(path);
try {
  console.log(JSON.stringify({ ...(await readStudy()), ...(await stopLive()) }, null, 1));
} finally {
  await chromium.close();
  await lab.stop();
}

async function readStudy() {
  const page = await open(chromium, { viewport: { width: 1200, height: 900 } });
  await page.goto(lab.address(""));
  const index = page.locator(".jp-MarkdownViewer");
  await index.locator("h1").waitFor();
  const seen = { index: await index.locator("h1").textContent() };
  seen.links = await index.locator("ul").first().locator("a").allTextContents();
  await page.waitForFunction(() => [...document.querySelectorAll(".jp-MarkdownViewer img")].every((image) => image.complete));
  seen.broken = await index.locator("img").evaluateAll((images) => images.filter((image) => !image.naturalWidth).length);
  seen.files = await page.locator(".jp-DirListing-itemText").allTextContents();
  await page.getByRole("menuitem", { name: "Settings", exact: true }).click();
  seen.autosave = await page.locator(".lm-Menu-item.lm-mod-toggled", { hasText: /autosave/i }).count();
  await page.keyboard.press("Escape");

  await index.locator("ul").first().getByRole("link", { name: study, exact: true }).click();
  const table = cells(page).filter({ hasText: '"conditions",' }).locator(".jp-OutputArea table").first();
  seen.before = await table.textContent();
  await change(page, "personas", "personas = 10");
  await change(page, "topics", "topics = 11");
  await change(page, "replicates", "replicates = 1000");
  await run(page, "Run All Cells");
  seen.after = await table.textContent();
  seen.errors = await errors(page).count();

  await change(page, "personas", "personnas = 10");
  await run(page, "Run All Cells");
  seen.typo = await errors(page).allTextContents();
  // The strip at the right shows every cell of the notebook, wherever one has scrolled to.
  const mark = page.locator(".jp-scrollbarItem-executionIndicator", { hasText: "[!]" });
  await mark.waitFor();
  seen.marked = await mark.allTextContents();
  await change(page, "personnas", "personas = 12");
  await run(page, "Run All Cells");
  seen.impossible = await errors(page).allTextContents();
  await page.context().close();
  return seen;
}

async function stopLive() {
  const page = await open(chromium, { viewport: { width: 1200, height: 900 } });
  await page.goto(lab.address(`lab/tree/studies/${live}.ipynb`, "&reset")); // without the tabs of before
  const button = page.getByRole("button", { name: "Stop", exact: true });
  await cells(page).first().waitFor();
  await start(page, "Run All Cells");
  await button.waitFor(); // the bar of the run before is gone by then
  await progress(page, 3);
  const estimate = await cells(page).nth(1).locator(".jp-OutputArea-output").first().textContent();
  await button.click();
  await ended(page);
  const stopped = [await errors(page).allTextContents()];

  await cells(page).nth(1).locator(".jp-InputArea").click();
  await start(page, "Run Selected Cell and All Below");
  await button.waitFor(); // the bar of the run before is gone by then
  await progress(page, 3);
  await page.locator('[data-command="notebook:interrupt-kernel"]').first().click();
  await ended(page);
  stopped.push(await errors(page).allTextContents());

  await cells(page).nth(1).locator(".jp-InputArea").click();
  await run(page, "Run Selected Cell and All Below");
  const buttons = await button.count();
  return { estimate, stopped, buttons, complete: await cells(page).nth(2).locator(".jp-OutputArea-output").textContent() };
}

function cells(page) {
  return page.locator(".jp-Notebook .jp-CodeCell");
}

function errors(page) {
  return page.locator('.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]');
}

// Replace the line of the parameters cell that assigns to a name.
async function change(page, name, line) {
  await cells(page).locator(".cm-line", { hasText: new RegExp(`^${name} = `) }).first().click();
  await page.keyboard.press("Home");
  await page.keyboard.press("Shift+End");
  await page.keyboard.type(line);
}

// Choose an item of the menu Run and wait until every cell was run or given up.
async function run(page, item) {
  await start(page, item);
  await ended(page);
}

async function start(page, item) {
  await page.getByText(/\| Idle$/).waitFor(); // in the status bar: the kernel has started
  // A refusal comes so fast that only an observer sees the stars of the cells that wait.
  await page.evaluate(() => {
    window.prompts = () => [...document.querySelectorAll(".jp-Notebook .jp-InputPrompt")].map((part) => part.textContent);
    window.waiting = () => window.prompts().some((prompt) => prompt.includes("*"));
    window.started = false;
    const watch = new MutationObserver(() => (window.started ||= window.waiting()));
    watch.observe(document.querySelector(".jp-Notebook"), { subtree: true, childList: true, characterData: true });
  });
  await page.getByRole("menuitem", { name: "Run", exact: true }).click();
  await page.locator(".lm-Menu-itemLabel").getByText(item, { exact: true }).click();
}

async function ended(page) {
  await page.waitForFunction(() => window.started && !window.waiting());
}

// Wait until the bar shows so many more answers than at its start.
async function progress(page, n) {
  await page.waitForFunction(
    (least) => Number((/(\d+)\/\d+\s*\[/.exec(document.querySelector(".jp-Notebook").textContent) ?? [])[1] ?? 0) >= least,
    n,
  );
}
