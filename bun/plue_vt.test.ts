import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Session, sessions, spawn, symbols, version, VtError } from "./plue_vt.ts";
import type { SessionEvent } from "./plue_vt.ts";

const controlDir = mkdtempSync("/tmp/vt."); // short enough for a socket's path
afterAll(() => rmSync(controlDir, { recursive: true }));

const shell = (script: string, options = {}) =>
  spawn(["sh", "-c", script], { controlDir, ...options });

async function codeOf(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    if (error instanceof VtError) return error.code;
    throw error;
  }
  return "no error";
}

async function all(events: AsyncIterable<SessionEvent>): Promise<SessionEvent[]> {
  const list: SessionEvent[] = [];
  for await (const event of events) list.push(event);
  return list;
}

const textOf = (events: SessionEvent[], code = "o") =>
  events.filter((event) => event.code === code).map((event) => event.data).join("");

/** Until the session's output contains `text`. */
async function shown(session: Session, text: string): Promise<void> {
  let output = "";
  for await (const event of session.events()) {
    if (event.code === "o" && (output += event.data).includes(text)) return;
  }
  throw new Error(`${text} is not in ${JSON.stringify(output)}`);
}

describe("a session", () => {
  test("is driven to its end", async () => {
    const session = shell("stty size; read line; echo got $line; stty size; exit 7", {
      id: "driven", name: "a \x1b]2;build", cols: 90, rows: 20, cwd: "/tmp",
    });
    expect(session.id).toBe("driven");
    expect(session.info).toMatchObject({
      id: "driven", status: "running", name: "a ]2;build", workingDir: "/tmp", initialCols: 90,
    });
    expect(session.exitCode).toBeNull();
    await shown(session, "20 90");
    await session.resize(100, 30);
    await session.send("thé line\r");
    expect(await session.wait({ timeoutMs: 10_000 })).toBe(7);
    expect(session.exitCode).toBe(7);
    const events = await all(session.events());
    expect(textOf(events)).toContain("got thé line\r\n30 100\r\n");
    expect(textOf(events, "i")).toBe("thé line\r");
    expect(textOf(events, "r")).toBe("100x30");
    expect(events.at(-1)).toMatchObject({ code: "x", data: "7" });
  });

  test("has the environment and the title mode it is given", async () => {
    const session = shell("printf '\\033]2;title\\007'; echo $ONLY-$HOME-$TERM", {
      env: { ONLY: "this", PATH: process.env["PATH"]! }, titleMode: "filter",
    });
    await session.wait();
    expect(textOf(await all(session.events()))).toBe("this--xterm-256color\r\n");
  });

  test("is followed while it runs", async () => {
    const session = shell("for i in 1 2 3; do echo $i; read x; done");
    const seen: string[] = [];
    for await (const event of session.events()) {
      if (event.code !== "o") continue;
      seen.push(event.data);
      if (/^\d/m.test(event.data)) await session.send("\n");
    }
    expect(seen.join("")).toContain("3");
    expect(await session.wait()).toBe(0);
  });

  test("events without follow are those until now, from an offset on", async () => {
    const session = shell("echo one; read x");
    await shown(session, "one");
    expect(textOf(await all(session.events({ follow: false })))).toBe("one\r\n");
    const offset = readFileSync(session.castPath).length;
    expect(await all(session.events({ follow: false, offset }))).toEqual([]);
    await session.kill("SIGKILL");
    expect(await session.wait()).toBe(137);
  });

  test("takes large input in order, bytes as they are", async () => {
    const script = "stty raw -echo; echo up; head -c 3000000 | md5sum";
    const session = shell(script, { recordInput: false });
    await shown(session, "up");
    const bytes = new Uint8Array(3_000_000).map((_, i) => (i * 7) ^ (i >> 8));
    await session.send(bytes, 60_000);
    expect(await session.wait({ timeoutMs: 60_000 })).toBe(0);
    const sum = new Bun.CryptoHasher("md5").update(bytes).digest("hex");
    expect(textOf(await all(session.events()))).toContain(sum);
  }, 60_000);

  test("is killed, by name or number", async () => {
    for (const [signal, code] of [["SIGTERM", 143], ["int", 130], [9, 137]] as const) {
      const session = shell("exec sleep 100"); // dash may lose a SIGINT between its forks
      await session.kill(signal);
      expect(await session.wait({ timeoutMs: 10_000 })).toBe(code);
    }
    const session = shell("sleep 100");
    expect(await codeOf(() => session.wait({ timeoutMs: 20 }))).toBe("timeout");
    await session.resetSize(); // no terminal: nothing happens
    for (const signal of ["NOPE", "", 0, 65, 1.5])
      expect(await codeOf(() => session.kill(signal))).toBe("argument");
    await session.kill();
    await session.wait();
  });

  test("is renamed while it runs and after its end", async () => {
    const session = shell("read x");
    await session.rename("new\x07 name");
    expect(session.info.name).toBe("new name");
    await session.send("\n");
    await session.wait();
    expect(session.info.name).toBe("new name");
    await session.rename("x".repeat(300));
    expect(session.info.name).toBe("x".repeat(256));
    expect(session.info.status).toBe("exited");
  });

  test("that is detached runs in a process of its own", async () => {
    const script = `
      import { spawn } from ${JSON.stringify(join(import.meta.dir, "plue_vt.ts"))};
      const controlDir = ${JSON.stringify(controlDir)};
      spawn(["sh", "-c", "read x; exit 4"], { controlDir, id: "survives", detached: true });
      spawn(["sleep", "100"], { controlDir, id: "ends" });
    `;
    const host = Bun.spawnSync([process.execPath, "-e", script], { stderr: "inherit" });
    expect(host.exitCode).toBe(0);
    const ended = Session.open("ends", { controlDir });
    expect(ended.info).toMatchObject({ status: "exited", exitCode: 129 });
    expect((await all(ended.events())).at(-1)).toMatchObject({ code: "x", data: "129" });
    const session = Session.open("survives", { controlDir });
    expect(session.info.status).toBe("running");
    await session.send("\n");
    expect(await session.wait({ timeoutMs: 10_000 })).toBe(4);
  });
});

test("a hundred sessions at once, and no descriptor left", async () => {
  const before = openFiles();
  const list = Array.from({ length: 100 }, () => shell("read x; exit 3"));
  await Promise.all(list.map((session) => session.send("\n")));
  expect(new Set(await Promise.all(list.map((session) => session.wait())))).toEqual(new Set([3]));
  for (let i = 0; i < 100 && openFiles() > before; i++) await Bun.sleep(20);
  expect(openFiles()).toBeLessThanOrEqual(before + 2); // Bun's own come and go
}, 30_000);

const openFiles = () => readdirSync("/dev/fd").length;

test("sessions are listed oldest first, without what is none", async () => {
  const place = { controlDir: join(controlDir, "list") };
  expect(sessions(place)).toEqual([]);
  const first = spawn(["true"], { ...place, id: "zz" });
  await first.wait();
  await Bun.sleep(2);
  const second = spawn(["true"], { ...place, id: "aa" });
  await second.wait();
  mkdirSync(join(place.controlDir, "empty"));
  mkdirSync(join(place.controlDir, "broken"));
  writeFileSync(join(place.controlDir, "broken", "session.json"), "{");
  writeFileSync(join(place.controlDir, "file"), "");
  expect(sessions(place).map((session) => session.id)).toEqual(["zz", "aa"]);
});

describe("what cannot work is an error that says why", () => {
  test("at the start", async () => {
    expect(await codeOf(() => spawn([], { controlDir }))).toBe("config");
    expect(await codeOf(() => shell("", { id: "a/b" }))).toBe("config");
    expect(await codeOf(() => shell("", { cols: 0 }))).toBe("config");
    expect(await codeOf(() => shell("", { cwd: "/no/such" }))).toBe("working_directory");
    const session = shell("sleep 100", { id: "twice" });
    expect(await codeOf(() => shell("", { id: "twice" }))).toBe("session_is_running");
    await session.kill();
    await session.wait();
    expect(() => spawn(["ls"], { controlDir, cols: 70_000 })).toThrow("cols is a whole number");
  });

  test("for sessions that are not there, have ended, or do not listen", async () => {
    expect(await codeOf(() => Session.open("no-such", { controlDir }))).toBe("no_session");
    expect(await codeOf(() => Session.open("../x", { controlDir }))).toBe("argument");
    const session = shell("true", { id: "over" });
    await session.wait();
    for (const call of [() => session.send("x"), () => session.kill(), () => session.resize(1, 1)])
      expect(await codeOf(call)).toBe("exited");
    expect(await codeOf(() => session.resize(0, 1))).toBe("argument");
    const path = join(controlDir, "deaf");
    mkdirSync(path);
    const info = { status: "running", pid: process.pid };
    writeFileSync(join(path, "session.json"), JSON.stringify(info));
    const deaf = Session.open("deaf", { controlDir });
    expect(await codeOf(() => deaf.send("x"))).toBe("unreachable");
    expect(await codeOf(() => all(deaf.events()))).toBe("no_session");
    // A dead process's session has ended, whatever it says.
    writeFileSync(join(path, "session.json"), JSON.stringify({ ...info, pid: 2 ** 22 + 1 }));
    expect(deaf.info).toMatchObject({ status: "exited", exitCode: 1 });
    expect(await codeOf(() => deaf.send("x"))).toBe("exited");
  });

  test("for a program that never reads", async () => {
    const path = join(controlDir, "stuck");
    mkdirSync(path);
    const info = JSON.stringify({ status: "running", pid: process.pid });
    writeFileSync(join(path, "session.json"), info);
    const server = createServer((socket) => socket.pause()).listen(join(path, "ipc.sock"));
    await new Promise((listening) => server.once("listening", listening));
    const stuck = Session.open("stuck", { controlDir });
    expect(await codeOf(() => stuck.send(new Uint8Array(4_000_000), 200))).toBe("timeout");
    server.close();
  });

  test("a recording that is cut or broken gives what it has", async () => {
    const path = join(controlDir, "cut");
    mkdirSync(path);
    writeFileSync(join(path, "session.json"), JSON.stringify({ status: "exited", exitCode: 0 }));
    const lines = ['{"version":2}', '[0.1,"o","a"]', "junk", '[1,2,3]', '[0.2,"o","b"]', '[0.3,"o'];
    writeFileSync(join(path, "stdout"), lines.join("\n"));
    const events = await all(Session.open("cut", { controlDir }).events());
    expect(textOf(events)).toBe("ab");
  });
});

test("a timeout may be longer than any timer, and is a number", async () => {
  const session = shell("read x; exit 4");
  await session.send("\r", Infinity);
  expect(await session.wait({ timeoutMs: Infinity })).toBe(4);
  expect(await codeOf(() => session.wait({ timeoutMs: NaN }))).toBe("argument");
});

test("a recording that another one replaces, or that is none, ends its events", async () => {
  const path = join(controlDir, "replaced");
  mkdirSync(path);
  const info = JSON.stringify({ status: "running", pid: process.pid });
  writeFileSync(join(path, "session.json"), info);
  const cast = join(path, "stdout");
  writeFileSync(cast, `{"version":2}\n${"x".repeat(17 << 20)}\n[0.1,"o","one"]\n[0.2,"o","two"]\n`);
  const session = Session.open("replaced", { controlDir });
  const seen: string[] = [];
  for await (const event of session.events()) {
    seen.push(event.data);
    if (event.data === "two") writeFileSync(cast, '{"version":2}\n');
  }
  expect(seen).toEqual(["one", "two"]);
  rmSync(cast);
  expect(Bun.spawnSync(["mkfifo", cast]).exitCode).toBe(0);
  expect(await codeOf(() => all(session.events()))).toBe("no_session");
});

test("a worker that ends leaves the sessions of the process", async () => {
  const session = shell("read x; exit 5");
  const source = join(controlDir, "worker.ts");
  writeFileSync(source, `
    import { spawn } from ${JSON.stringify(join(import.meta.dir, "plue_vt.ts"))};
    await spawn(["true"], { controlDir: ${JSON.stringify(controlDir)} }).wait();
    process.exit(0);
  `);
  const worker = new Worker(source);
  await new Promise((ended) => worker.addEventListener("close", ended));
  await session.send("\r");
  expect(await session.wait()).toBe(5);
  expect(await shell("exit 6").wait()).toBe(6);
});

test("the library says its version and has no export without a name here", () => {
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
  expect(Object.keys(symbols).every((name) => name.startsWith("vt_fwd_"))).toBe(true);
});
