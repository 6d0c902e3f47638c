// JupyterLab as `make lab` starts it, with settings of nobody and a token of its own.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PATIENCE = 300_000; // milliseconds

// Returns the address, token included, and a function that ends the server and its kernels.
export async function serve(checkout) {
  const home = mkdtempSync(join(tmpdir(), "lab-"));
  const token = randomUUID();
  const places = { JUPYTER_CONFIG_DIR: "config", JUPYTER_DATA_DIR: "data", JUPYTER_RUNTIME_DIR: "runtime", IPYTHONDIR: "ipython" };
  const env = { ...process.env, JUPYTER_TOKEN: token };
  for (const [name, place] of Object.entries(places)) env[name] = join(home, place);
  // --allow-root: containers run as root.
  const flags = "FLAGS=--no-browser --ip=127.0.0.1 --port=0 --allow-root";
  const make = spawn("make", ["-C", checkout, "lab", flags], { env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [make.stdout, make.stderr]) stream.on("data", (text) => (said += text));
  const ended = new Promise((resolve) => make.on("exit", resolve));
  const stop = async () => {
    if (make.exitCode === null) process.kill(-make.pid, "SIGTERM");
    await ended;
    rmSync(home, { recursive: true, force: true });
  };
  for (const start = Date.now(); Date.now() - start < PATIENCE && make.exitCode === null; ) {
    const found = list(env.JUPYTER_RUNTIME_DIR).find((name) => /^jpserver-\d+\.json$/.test(name));
    if (found) {
      const { url } = JSON.parse(readFileSync(join(env.JUPYTER_RUNTIME_DIR, found), "utf8"));
      return { address: (place, query = "") => `${url}${place}?token=${token}${query}`, stop };
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await stop();
  throw new Error(`make lab did not start:\n${said}`);
}

function list(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
