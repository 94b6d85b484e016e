/**
 * Terminal sessions for VibeTunnel from Bun, on libvt_fwd, the library that Python uses too.
 *
 *     const session = spawn(["sh", "-c", "read name; echo hello $name"]);
 *     await session.send("bun\r");
 *     for await (const event of session.events()) if (event.code === "o") console.log(event.data);
 *     console.log(await session.wait()); // 0
 *
 * A session that `spawn` starts runs in this process and ends with it; one that is `detached` runs
 * by itself. `sessions` and `Session.open` find all of them, and those of `vt` and VibeTunnel.
 */

import { dlopen, ptr, suffix } from "bun:ffi";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { connect } from "node:net";
import { constants as system, homedir } from "node:os";
import { join, resolve } from "node:path";
import { isMainThread } from "node:worker_threads";

/** Every export of the library with the types of vt_fwd.h; `pyplue.ffi` has the same. */
export const symbols = {
  vt_fwd_last_error: { args: [], returns: "i32" },
  vt_fwd_last_message: { args: [], returns: "cstring" },
  vt_fwd_needed: { args: [], returns: "u64" },
  vt_fwd_error_name: { args: ["i32"], returns: "cstring" },
  vt_fwd_version: { args: [], returns: "cstring" },
  vt_fwd_start: { args: ["ptr", "u64"], returns: "u32" },
  vt_fwd_session_id: { args: ["u32", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_pid: { args: ["u32"], returns: "i32" },
  vt_fwd_wait: { args: ["u32", "i64"], returns: "i32" },
  vt_fwd_stop: { args: ["u32"], returns: "i32" },
  vt_fwd_kill: { args: ["u32", "u32"], returns: "i32" },
  vt_fwd_close: { args: ["u32"], returns: "bool" },
  vt_fwd_shutdown: { args: [], returns: "void" },
  vt_fwd_running: { args: [], returns: "u32" },
  vt_fwd_frame_encode: { args: ["u32", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_decoder_create: { args: [], returns: "u32" },
  vt_fwd_decoder_destroy: { args: ["u32"], returns: "bool" },
  vt_fwd_decoder_next: { args: ["u32", "ptr", "u64", "ptr", "u64", "ptr"], returns: "i32" },
  vt_fwd_cast_create: { args: ["ptr", "u32", "u32", "i64", "ptr", "ptr", "u64"], returns: "u32" },
  vt_fwd_cast_output: { args: ["u32", "u64", "ptr", "u64"], returns: "i32" },
  vt_fwd_cast_input: { args: ["u32", "u64", "ptr", "u64"], returns: "i32" },
  vt_fwd_cast_resize: { args: ["u32", "u64", "u32", "u32"], returns: "i32" },
  vt_fwd_cast_marker: { args: ["u32", "u64", "ptr"], returns: "i32" },
  vt_fwd_cast_clear_offset: { args: ["u32"], returns: "i64" },
  vt_fwd_cast_end: { args: ["u32", "u64", "u32", "ptr"], returns: "i32" },
  vt_fwd_filter_create: { args: [], returns: "u32" },
  vt_fwd_filter_destroy: { args: ["u32"], returns: "bool" },
  vt_fwd_filter_write: { args: ["u32", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_filter_end: { args: ["u32", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_parse: { args: ["ptr", "ptr", "u64", "ptr", "u64"], returns: "i64" },
  vt_fwd_session_read: { args: ["ptr", "ptr", "u64"], returns: "i64" },} as const;

/** The library file: $VT_FWD_LIBRARY, or the one beside this file, or of this source tree. */
export const libraryPath = findLibrary();

function findLibrary(): string {
  const given = process.env["VT_FWD_LIBRARY"];
  if (given) return given;
  const file = `libvt_fwd.${suffix}`;
  const folders = ["lib", "../pyplue/_native", "../zig-out/lib", "../zig/vt-fwd/zig-out/lib"];
  const found = folders.map((folder) => join(import.meta.dir, folder, file)).find(existsSync);
  if (found) return found;
  throw new Error(`${file} is not built: run "zig build" or set VT_FWD_LIBRARY to its path`);
}

const native = dlopen(libraryPath, symbols).symbols;

/** Version of the library, for example "0.1.0". */
export const version = String(native.vt_fwd_version());

/**
 * What could not be done. `code` is a name of vt_fwd.h in lower case, or "exited" (the session has
 * ended), "unreachable" (nobody listens there) or "argument".
 */
export class VtError extends Error {
  override name = "VtError";
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

function lastError(): VtError {
  const message = String(native.vt_fwd_last_message());
  return new VtError(String(native.vt_fwd_error_name(native.vt_fwd_last_error())), message);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The result of a function that fills a buffer, which is made as large as it asks for. */
function filled(
  call: (out: Uint8Array, room: number) => number | bigint,
  room: number,
): Uint8Array {
  for (;;) {
    const out = new Uint8Array(room);
    const length = Number(call(out, room));
    if (length >= 0) return out.subarray(0, length);
    const error = lastError();
    if (error.code !== "buffer_too_small") throw error;
    room = Number(native.vt_fwd_needed());
  }
}

// ---- what is known of a session ---------------------------------------------------------------

/** session.json as it is now; null where it says nothing, or nothing sensible. */
export interface SessionInfo {
  id: string;
  /** Without control characters. */
  name: string | null;
  command: string[] | null;
  workingDir: string | null;
  /** "exited", with exitCode 1, also when it says "running" and its process is gone. */
  status: "starting" | "running" | "exited" | null;
  /** ISO 8601, UTC. */
  startedAt: string | null;
  pid: number | null;
  /** 128 + n when signal n ended it. */
  exitCode: number | null;
  initialCols: number | null;
  initialRows: number | null;
  /** Where in the recording a viewer may start. */
  lastClearOffset: number | null;
  version: string | null;
  attachedViaVT: boolean | null;
  gitRepoPath: string | null;
  gitBranch: string | null;
  gitMainRepoPath: string | null;
  gitAheadCount: number | null;
  gitBehindCount: number | null;
  gitHasChanges: boolean | null;
  gitIsWorktree: boolean | null;
}

/** One line of a recording. */
export interface SessionEvent {
  /** Seconds since the recording began. */
  time: number;
  /** o: output, i: input, r: a new size ("80x24"), m: a marker, x: the end (the exit code). */
  code: "o" | "i" | "r" | "m" | "x";
  data: string;
}

export interface Place {
  /** Where sessions live: default $VIBETUNNEL_CONTROL_DIR, else ~/.vibetunnel/control. */
  controlDir?: string;
}

export interface SpawnOptions extends Place {
  /** 1 to 64 letters, digits, "_" or "-". */
  id?: string;
  name?: string;
  cwd?: string;
  /** Instead of this process's environment. */
  env?: Record<string, string>;
  /** Default 80 and 24. */
  cols?: number;
  rows?: number;
  /** "filter" and "static" take window titles out of the recording. */
  titleMode?: "none" | "filter" | "static";
  /** False: nothing that is typed is recorded. */
  recordInput?: boolean;
  /** In a process of its own (vibetunnel-fwd, on PATH), which goes on when this one ends. */
  detached?: boolean;
}

/** Starts `argv` on a terminal of its own. The program runs when this returns. */
export function spawn(argv: readonly string[], options: SpawnOptions = {}): Session {
  const controlDir = directoryOf(options);
  const { cols = 80, rows = 24, detached = false, ...rest } = options;
  if (detached) return spawnDetached(argv, { ...rest, cols, rows }, controlDir);
  const config = encoder.encode(
    JSON.stringify({
      argv, cols, rows, id: rest.id, name: rest.name, title_mode: rest.titleMode,
      // Bun's process.env, not the one that the process began with.
      cwd: rest.cwd ?? process.cwd(), env: rest.env ?? process.env,
      record_input: rest.recordInput, control_dir: controlDir,
    }),
  );
  endWithProcess();
  const handle = native.vt_fwd_start(ptr(config), config.length);
  if (handle === 0) throw lastError();
  const id = filled((out, room) => native.vt_fwd_session_id(handle, ptr(out), room), 64);
  native.vt_fwd_close(handle); // it goes on; its files say the rest
  return new Session(decoder.decode(id), controlDir);
}

let watchesExit = false;

/** Bun's exit skips what the C library would do then. The exit of a worker is not the process's. */
function endWithProcess(): void {
  if (watchesExit || !isMainThread) return;
  watchesExit = true;
  process.on("exit", () => native.vt_fwd_shutdown());
}

function spawnDetached(
  argv: readonly string[],
  options: Omit<SpawnOptions, "detached"> & { cols: number; rows: number },
  controlDir: string,
): Session {
  if (argv.length === 0) throw new VtError("argument", "argv is empty: name the program to run");
  const flags = ["--detach", "--size", `${options.cols}x${options.rows}`];
  if (options.id !== undefined) flags.push("--session-id", options.id);
  if (options.name !== undefined) flags.push("--name", options.name);
  if (options.titleMode !== undefined) flags.push("--title-mode", options.titleMode);
  if (options.recordInput === false) flags.push("--no-record-input");
  const program = Bun.which("vibetunnel-fwd");
  if (!program) throw new VtError("system", "vibetunnel-fwd is not on PATH: install pyplue");
  const done = Bun.spawnSync([program, ...flags, "--", ...argv], {
    cwd: options.cwd ?? process.cwd(),
    env: { ...(options.env ?? process.env), VIBETUNNEL_CONTROL_DIR: controlDir },
    stdin: "ignore",
  });
  if (done.exitCode !== 0) {
    const said = done.stderr.toString().trim().replace(/^(\[ERROR\]|vibetunnel-fwd:) /, "");
    throw new VtError("system", `the session was not started: ${said || "vibetunnel-fwd failed"}`);
  }
  return new Session(done.stdout.toString().trim(), controlDir);
}

function directoryOf({ controlDir }: Place): string {
  const chosen = controlDir ?? process.env["VIBETUNNEL_CONTROL_DIR"];
  if (chosen) return resolve(chosen);
  return join(process.env["HOME"] || homedir(), ".vibetunnel", "control");
}

/** All sessions, the oldest first. What has no valid session.json is left out. */
export function sessions(place: Place = {}): Session[] {
  const controlDir = directoryOf(place);
  const found: [string, Session][] = [];
  if (!existsSync(controlDir)) return [];
  for (const entry of readdirSync(controlDir, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    try {
      const session = Session.open(entry.name, { controlDir });
      found.push([`${session.info.startedAt ?? ""} ${session.id}`, session]);
    } catch (error) {
      if (!(error instanceof VtError)) throw error;
    }
  }
  return found.sort(([a], [b]) => (a < b ? -1 : 1)).map(([, session]) => session);
}

const sleep = (ms: number) => new Promise<void>((done) => setTimeout(done, ms));

/** How long an exit line may follow "exited" in session.json. */
const exitLineMs = 1000;
/** How long a session may take to hang up when all that it was sent has been sent. */
const hangUpMs = 2000;
const maxInputBytes = 1 << 20;
const maxLineBytes = 16 << 20;
/** What setTimeout takes. */
const longestMs = 2 ** 31 - 1;
/** Whatever somebody puts in a recording's place, nobody waits for it. */
const openFlags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

let temporaries = 0;

/** A session on this machine, whoever started it. It holds nothing open and owns nothing. */
export class Session {
  readonly id: string;
  /** Its directory. */
  readonly path: string;

  /** For `spawn`, `sessions` and `Session.open`. */
  constructor(id: string, controlDir: string) {
    this.id = id;
    this.path = join(controlDir, id);
  }

  /** The session with this id, running or not; throws VtError when there is none. */
  static open(id: string, place: Place = {}): Session {
    if (!/^[A-Za-z0-9_-]{1,255}$/.test(id))
      throw new VtError("argument", `${JSON.stringify(id)} is no session id`);
    const session = new Session(id, directoryOf(place));
    void session.info;
    return session;
  }

  /** What session.json says now; throws VtError "no_session" or "json". */
  get info(): SessionInfo {
    const path = encoder.encode(`${this.path}\0`);
    const text = filled((out, room) => native.vt_fwd_session_read(ptr(path), ptr(out), room), 4096);
    return JSON.parse(decoder.decode(text)) as SessionInfo;
  }

  /** The exit code once it has ended, else null. */
  get exitCode(): number | null {
    const { status, exitCode } = this.info;
    return status === "exited" ? exitCode : null;
  }

  /** The recording, an asciicast v2 that grows. */
  get castPath(): string {
    return join(this.path, "stdout");
  }

  // ---- input ----------------------------------------------------------------------------------

  /** Types text, or bytes. Resolves when the session has taken all of it. */
  async send(data: string | Uint8Array, timeoutMs = 10_000): Promise<void> {
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    const frames: Uint8Array[] = [];
    for (let start = 0; start < bytes.length; start += maxInputBytes)
      frames.push(frame(1, bytes.subarray(start, start + maxInputBytes)));
    if (frames.length > 0) await this.#tell(frames, timeoutMs);
  }

  /** Gives the terminal another size, 1 to 65535 each. */
  async resize(cols: number, rows: number): Promise<void> {
    for (const size of [cols, rows])
      if (!Number.isInteger(size) || size < 1 || size > 65535)
        throw new VtError("argument", `a terminal has 1 to 65535 columns and rows, not ${size}`);
    await this.#control({ cmd: "resize", cols, rows });
  }

  /** The size of the terminal that it was started on, if there is one. */
  async resetSize(): Promise<void> {
    await this.#control({ cmd: "reset-size" });
  }

  /** Sends a signal to the program's process group, a number or a name; see `wait` for its end. */
  async kill(signal: number | string = "SIGTERM"): Promise<void> {
    const known = typeof signal === "number"
      ? Number.isInteger(signal) && signal >= 1 && signal <= 64
      : Object.hasOwn(system.signals, `SIG${signal.toUpperCase().replace(/^SIG/, "")}`);
    if (!known) throw new VtError("argument", `${signal} is no signal: use SIGTERM, or its number`);
    await this.#control({ cmd: "kill", signal });
  }

  /** Another name: control characters are dropped, 256 characters are kept. */
  async rename(name: string): Promise<void> {
    const plain = name.replace(/[\u0000-\u001f\u007f-\u009f]/g, "");
    const title = [...plain].slice(0, 256).join("");
    void this.info; // throws when it is not there
    const file = join(this.path, "session.json");
    const members = JSON.parse(readFileSync(file, "utf8")) as object;
    const text = JSON.stringify({ ...members, name: title }, null, 2);
    const staged = join(this.path, `.session.json.${process.pid}.${++temporaries}.tmp`);
    writeFileSync(staged, `${text}\n`, { flag: "wx", mode: 0o600 });
    renameSync(staged, file);
    try {
      await this.#control({ cmd: "update-title", title });
    } catch (error) {
      if (!(error instanceof VtError)) throw error; // it has ended: the file is all there is
    }
  }

  #control(command: object): Promise<void> {
    return this.#tell([frame(2, encoder.encode(JSON.stringify(command)))], 10_000);
  }

  #tell(frames: Uint8Array[], timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(join(this.path, "ipc.sock"));
      const timer = setTimeout(() => {
        const why = "the session did not take all input: its program does not read";
        finish(new VtError("timeout", why));
      }, Math.min(timeoutMs, longestMs));
      let late: ReturnType<typeof setTimeout> | undefined;
      let sent = false;
      const finish = (error?: VtError) => {
        clearTimeout(timer);
        clearTimeout(late);
        socket.destroy();
        error ? reject(error) : resolve();
      };
      socket.on("error", (error) => finish(sent ? undefined : this.#unreachable(error)));
      socket.on("close", () => finish(sent ? undefined : this.#unreachable(new Error("hung up"))));
      socket.on("data", () => {}); // answers are not for us
      socket.on("end", () => finish(sent ? undefined : this.#unreachable(new Error("hung up"))));
      socket.end(Buffer.concat(frames), () => {
        sent = true;
        // Other forwarders than ours need not hang up: what was sent has arrived all the same.
        late = setTimeout(finish, hangUpMs);
      });
    });
  }

  #unreachable(error: Error): VtError {
    let info: SessionInfo;
    try {
      info = this.info;
    } catch (missing) {
      if (missing instanceof VtError) return missing;
      throw missing;
    }
    if (info.status === "exited")
      return new VtError("exited", `session ${this.id} has ended with exit code ${info.exitCode}`);
    return new VtError("unreachable", `nobody listens at ${this.path}/ipc.sock: ${error.message}`);
  }

  // ---- output and end -------------------------------------------------------------------------

  /**
   * The recording's events from the line at byte `offset` on and, with `follow` (the default),
   * those to come until the session ends, or another one takes its place. A line that is no event
   * is left out, as is one that is cut at the end.
   */
  async *events({ follow = true, offset = 0 } = {}): AsyncGenerator<SessionEvent, void, void> {
    const file = await open(this.castPath, openFlags).catch(() => {
      throw new VtError("no_session", `${this.castPath} is missing: there is no recording`);
    });
    if (!(await file.stat()).isFile()) {
      await file.close();
      throw new VtError("no_session", `${this.castPath} is no regular file: it is no recording`);
    }
    const chunk = new Uint8Array(1 << 16);
    let rest = Buffer.alloc(0);
    let position = offset;
    let pause = 2;
    let overSince: number | undefined;
    let time = 0;
    try {
      for (;;) {
        const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
        if (bytesRead === 0) {
          // A recording whose forwarder was killed has no exit line.
          if (overSince !== undefined && Date.now() - overSince > exitLineMs) return;
          if (!follow || (await file.stat()).size < position) return;
          if (this.#isOver()) overSince ??= Date.now();
          await sleep((pause = Math.min(pause * 1.5, 50)));
          continue;
        }
        position += bytesRead;
        pause = 2;
        rest = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
        // What follows of such a line is no event either.
        if (rest.length > maxLineBytes && !rest.includes(10)) rest = Buffer.from("-");
        for (let end; (end = rest.indexOf(10)) >= 0; rest = rest.subarray(end + 1)) {
          const event = eventOf(decoder.decode(rest.subarray(0, end)), time);
          if (event === null) continue;
          time = event.time;
          yield event;
          if (event.code === "x") return;
        }
      }
    } finally {
      await file.close();
    }
  }

  /** Resolves to the exit code when the program has ended and its recording is complete. */
  async wait({ timeoutMs = Infinity } = {}): Promise<number> {
    if (Number.isNaN(timeoutMs)) throw new VtError("argument", "timeoutMs is NaN, and no number");
    const end = Date.now() + timeoutMs;
    let pause = 2;
    while (!this.#isOver()) {
      if (Date.now() >= end) throw new VtError("timeout", `session ${this.id} still runs`);
      await sleep(Math.min((pause = Math.min(pause * 1.5, 30)), Math.max(1, end - Date.now())));
    }
    const giveUp = Date.now() + exitLineMs;
    while (!this.#hasExitLine() && Date.now() < giveUp) await sleep(2);
    return this.info.exitCode ?? 1;
  }

  #isOver(): boolean {
    try {
      return this.info.status === "exited";
    } catch (error) {
      if (error instanceof VtError && error.code === "no_session") return true; // cleaned up
      throw error;
    }
  }

  #hasExitLine(): boolean {
    try {
      const file = openSync(this.castPath, openFlags);
      try {
        const tail = new Uint8Array(512);
        const start = Math.max(0, fstatSync(file).size - tail.length);
        const text = decoder.decode(tail.subarray(0, readSync(file, tail, 0, tail.length, start)));
        return text.trimEnd().split("\n").at(-1)!.startsWith('["exit"');
      } finally {
        closeSync(file);
      }
    } catch {
      return true; // there is no recording to be complete
    }
  }
}

function frame(type: number, payload: Uint8Array): Uint8Array {
  const bytes = payload.length > 0 ? ptr(payload) : null;
  return filled(
    (out, room) => native.vt_fwd_frame_encode(type, bytes, payload.length, ptr(out), room),
    payload.length + 5,
  );
}

/** Null for the header, and for what is no event. The exit line has no time of its own. */
function eventOf(line: string, lastTime: number): SessionEvent | null {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return null;
  }
  if (!Array.isArray(value) || value.length !== 3) return null;
  const [time, code, data] = value as [unknown, unknown, unknown];
  if (time === "exit" && typeof code === "number")
    return { time: lastTime, code: "x", data: String(code) };
  if (typeof time !== "number" || typeof data !== "string") return null;
  if (code !== "o" && code !== "i" && code !== "r" && code !== "m") return null;
  return { time, code, data };
}
