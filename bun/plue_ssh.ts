/**
 * A Git server over SSH inside Bun: clone, fetch and push with public keys, served by libplue_ssh.
 *
 *     import { GitServer } from "./plue_ssh.ts";
 *
 *     const server = new GitServer("/srv/git", {
 *       port: 2222,
 *       hostKey: "/etc/plue/ssh_host_ed25519_key",
 *       authenticate: async (user, key) => (await users.byKey(key))?.name ?? null,
 *       authorize: async (principal, repository, write) => !write || repository.startsWith(`${principal}/`),
 *     });
 *     server.start();
 *
 * Everything that is not allowed explicitly is refused. SSH and git run on the library's own
 * threads; only the two questions above reach JavaScript, through a queue, because a Bun callback
 * cannot return a value to a foreign thread.
 */

import { CString, JSCallback, dlopen, ptr, suffix, type Pointer } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** The C functions of libplue_ssh by Bun's types; plue_ssh.h says what each does. */
export const symbols = {
  ssh_server_start: { args: ["u16", "ptr"], returns: "bool" },
  ssh_server_stop: { args: [], returns: "void" },
  plue_ssh_server_drain: { args: [], returns: "bool" },
  ssh_set_auth_callback: { args: ["function"], returns: "void" },
  ssh_get_connection_count: { args: [], returns: "u32" },
  plue_ssh_port: { args: [], returns: "u16" },
  plue_ssh_last_error: { args: [], returns: "ptr" },
  plue_ssh_version: { args: [], returns: "ptr" },
  plue_ssh_libssh_version: { args: [], returns: "ptr" },
  plue_ssh_configure: { args: ["ptr"], returns: "bool" },
  plue_ssh_keys_add: { args: ["ptr", "ptr", "ptr"], returns: "bool" },
  plue_ssh_keys_remove: { args: ["ptr"], returns: "bool" },
  plue_ssh_keys_replace: { args: ["ptr"], returns: "bool" },
  plue_ssh_keys_clear: { args: [], returns: "void" },
  plue_ssh_keys_count: { args: [], returns: "u32" },
  plue_ssh_set_authenticate_callback: { args: ["function"], returns: "void" },
  plue_ssh_set_authorize_callback: { args: ["function"], returns: "void" },
  plue_ssh_set_decision_notify: { args: ["function"], returns: "void" },
  plue_ssh_decision_next: { args: ["ptr", "u32"], returns: "u32" },
  plue_ssh_decision_reply: { args: ["u32", "bool", "ptr"], returns: "bool" },
  plue_ssh_set_push_notify: { args: ["function"], returns: "void" },
  plue_ssh_push_next: { args: ["ptr", "u32"], returns: "u32" },
  plue_ssh_push_done: { args: ["u32"], returns: "bool" },
  plue_ssh_event_next: { args: ["ptr", "u32"], returns: "u32" },
  plue_ssh_set_event_notify: { args: ["function"], returns: "void" },
  plue_ssh_counters: { args: ["ptr", "u32"], returns: "u32" },
} as const;

/** PLUE_SSH_RECORD_MAX of the header. */
const RECORD_MAX = 32768;
/** A notification may come late; this is how long a question waits at most, in milliseconds. */
const POLL_MS = 50;

/** $PLUE_SSH_LIBRARY, or the library beside this file, or of this source tree. */
function findLibrary(): string {
  const given = process.env["PLUE_SSH_LIBRARY"];
  if (given) return given;
  const file = `libplue_ssh.${suffix}`;
  const folders = ["lib", "../pyplue/_native", "../zig-out/lib", "../zig/ssh/zig-out/lib"];
  const found = folders.map((folder) => join(import.meta.dir, folder, file)).find(existsSync);
  if (found) return found;
  throw new Error(`${file} is not built: run "zig build" or set PLUE_SSH_LIBRARY to its path`);
}

const load = () => dlopen(findLibrary(), symbols).symbols;
let loaded: ReturnType<typeof load> | undefined;
const library = () => (loaded ??= load());

/** The server cannot start, or a setting, key or rule is wrong. The message says what to do. */
export class SshError extends Error {
  override name = "SshError";
}

export type Access = "none" | "read" | "write";

/** What one principal's keys are, and what it may do: rules are "read PATTERN" or "write PATTERN",
 * PATTERN a repository such as "alice/repo", a prefix such as "alice/*", or "*". */
export interface Principal {
  keys: string[];
  rules?: string[];
}

/** One thing that happened; plue_ssh.h lists them at plue_ssh_event_next. */
export interface ServerEvent {
  event: string;
  level: "debug" | "info" | "warning" | "error";
  time: number;
  [field: string]: unknown;
}

/** Gauges and totals since the process began, by their names in plue_ssh.h. */
export interface Counters {
  connections: number;
  authenticated: number;
  gits_running: number;
  decisions_pending: number;
  pushes_waiting: number;
  keys: number;
  accepted_total: number;
  refused_total: number;
  authenticated_total: number;
  auth_failed_total: number;
  commands_total: number;
  commands_refused_total: number;
  gits_failed_total: number;
  bytes_in_total: number;
  bytes_out_total: number;
  pushes_total: number;
  pushes_lost_total: number;
  decisions_total: number;
  decisions_timeout_total: number;
  events_dropped_total: number;
  refused_by_reason: Record<string, number>;
  auth_failed_by_reason: Record<string, number>;
  commands_refused_by_reason: Record<string, number>;
  disconnected_by_reason: Record<string, number>;
  commands_by_service: Record<string, number>;
  durations_by_service: Record<
    string,
    { count: number; sum_ms: number; le_ms: Record<string, number> }
  >;
}

/** One reference that was updated; an id of zeros stands for "not there". */
export interface Update {
  ref: string;
  old: string;
  new: string;
}

/** A push that has updated something. */
export interface Push {
  /** Its name, such as "alice/repo". */
  repository: string;
  /** Its Git directory. */
  path: string;
  principal: string;
  /** Exactly the references that git reported as updated, unless not `confirmed`. */
  updates: Update[];
  /** false: git was killed before its report was heard, or its client wanted none. `updates` are
   * then all that git was asked for and did not refuse: compare with the repository. */
  confirmed: boolean;
  address: string;
  /** Of the key that pushed, "SHA256:...". */
  fingerprint: string;
  connection: number;
  /** When git had ended, in seconds since 1970. */
  time: number;
}

export interface Options {
  /** A numeric address; "127.0.0.1". */
  host?: string;
  /** 2222; 0 picks a free one, see `GitServer.port`. */
  port?: number;
  /** The server's private key, generated when the file is missing. */
  hostKey: string;
  /** A table of principals: logins and commands that it answers do not reach JavaScript. */
  keys?: Record<string, string | string[] | Principal>;
  /** Who owns `key`, an OpenSSH line such as "ssh-ed25519 AAAA..."? null refuses. The client has
   * proved to own it. A rejected promise, or no answer within decision_timeout_ms, refuses. */
  authenticate?: (user: string, key: string) => Promise<string | null> | string | null;
  /** May this principal read, or write, this repository? Only `true` allows. */
  authorize?: (
    principal: string,
    repository: string,
    write: boolean,
  ) => Promise<boolean> | boolean;
  /** What a principal without rules may do when there is no `authorize`; "none". */
  defaultAccess?: Access;
  /** Told of every push that has updated something, one at a time and in order; a promise is waited
   * for, a rejected one goes to `onError` and is not repeated. When it falls behind by more than
   * push_queue pushes (1024), new ones are refused. */
  onPush?: (push: Push) => Promise<unknown> | unknown;
  /** Called for every event of the server. */
  onEvent?: (event: ServerEvent) => void;
  /** Called when `authenticate`, `authorize` or `onPush` threw; console.error when left out. */
  onError?: (error: unknown) => void;
  /** Further settings by their names in plue_ssh.h, such as { max_channels: 4 }. */
  settings?: Record<string, unknown>;
}

interface Question {
  kind: "authenticate" | "authorize";
  user: string;
  key: string;
  principal: string;
  repository: string;
  write: boolean;
}

let running: GitServer | undefined;
let taking: (() => void) | undefined;
/** While pushes are being told; one server may still be at it when the next one starts. */
let telling: Promise<void> | undefined;

// From a server thread Bun queues the call; it is never waited for and returns nothing. One for
// the whole process, never closed: a call that was queued before a stop may come after it.
let notify: JSCallback | undefined;
const arrived = () =>
  (notify ??= new JSCallback(() => taking?.(), { returns: "void", threadsafe: true }));

type Row = Principal & { principal: string };

/** The keys of a server, as plue_ssh_keys_replace takes them. */
class Table {
  readonly #given: Row[];
  #byKey: Map<string, Row> | undefined;

  constructor(keys: NonNullable<Options["keys"]>) {
    this.#given = Object.entries(keys).map(([principal, entry]) => {
      if (typeof entry === "string") return { principal, keys: [entry] };
      return Array.isArray(entry) ? { principal, keys: entry } : { principal, ...entry };
    });
  }

  putInForce(): void {
    const rows = this.#byKey ? [...this.#byKey.values()] : this.#given;
    check(library().plue_ssh_keys_replace(text(JSON.stringify(rows))));
  }

  /** A row of one key, in the place of the same one. */
  put(row: Row): void {
    for (const key of row.keys) this.#keys().set(plain(key), row);
  }

  remove(key: string): void {
    this.#keys().delete(plain(key));
  }

  #keys(): Map<string, Row> {
    // Only now, when the library has taken them: what it refuses may have one of them twice.
    return (this.#byKey ??= new Map(
      this.#given.flatMap((row) => row.keys.map((key) => [plain(key), { ...row, keys: [key] }])),
    ));
  }
}

/** Without the comment. A blob has one spelling: the library takes no other base64. */
const plain = (key: string): string => key.trim().split(/\s+/, 2).join(" ");

/** Serves the Git repositories below a directory. One per process can run at a time. */
export class GitServer {
  readonly #repositories: string;
  readonly #options: Options;
  /** What the library gets at the next start. */
  #table: Table;
  readonly #record = new Uint8Array(RECORD_MAX);
  #notice = new Uint8Array(RECORD_MAX);
  #poll: ReturnType<typeof setInterval> | undefined;

  constructor(repositories: string, options: Options) {
    this.#repositories = repositories;
    this.#options = options;
    this.#table = new Table(options.keys ?? {});
  }

  /** Binds and serves in the background. Throws SshError, with nothing left running. */
  start(): this {
    if (running) throw new SshError("a GitServer runs in this process already: stop() it first");
    const { host, port = 2222, hostKey, authenticate, authorize } = this.#options;
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new SshError(`port is ${port}; it is 0 (any free one) to 65535`);
    }
    const configuration = {
      push_queue: this.#options.onPush ? 1024 : 0,
      ...this.#options.settings,
      repositories: this.#repositories,
      bind_address: host ?? "127.0.0.1",
      default_access: this.#options.defaultAccess ?? "none",
      authenticate: authenticate ? "queue" : "keys",
      authorize: authorize ? "queue" : "keys",
    };
    const lib = library();
    check(lib.plue_ssh_configure(text(JSON.stringify(configuration))));
    this.#table.putInForce();
    this.#listen();
    if (!lib.ssh_server_start(port, text(hostKey))) {
      const reason = lastError();
      this.#unlisten();
      throw new SshError(reason);
    }
    running = this;
    return this;
  }

  /** Takes no more connections, lets running gits finish for drain_timeout_s, then ends them.
   * JavaScript goes on meanwhile. Resolves when nothing is left; does nothing when this server is
   * not running. */
  async stop(): Promise<void> {
    while (running === this && !library().plue_ssh_server_drain()) await Bun.sleep(POLL_MS);
    this[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** The same as `stop`, but JavaScript stands still until nothing is left. */
  [Symbol.dispose](): void {
    if (running !== this) return;
    library().ssh_server_stop();
    this.#take();
    this.#unlisten();
    running = undefined;
  }

  /** Resolves when `onPush` is done with all pushes so far; also after `stop`. */
  async pushesTold(): Promise<void> {
    this.#tell();
    await telling;
  }

  /** The port in use, 0 while this server does not run. */
  get port(): number {
    return running === this ? library().plue_ssh_port() : 0;
  }

  /** Number of authenticated connections. */
  get connectionCount(): number {
    return running === this ? library().ssh_get_connection_count() : 0;
  }

  /** Gauges and totals by the names in plue_ssh.h. */
  counters(): Counters {
    return JSON.parse(this.#filled(library().plue_ssh_counters(ptr(this.#record), RECORD_MAX)));
  }

  /** Adds a key to the table at once and for later starts, or gives this principal's key new rules.
   * Throws SshError while this server does not run. */
  addKey(principal: string, key: string, rules?: string[]): void {
    this.#needRunning();
    const lines = rules?.join("\n");
    const ruleText = lines === undefined ? null : text(lines);
    check(library().plue_ssh_keys_add(text(principal), text(key), ruleText));
    // As the library has read them: with a line break in it, one rule is two.
    this.#table.put({ principal, keys: [key], rules: lines?.split("\n") });
  }

  /** Removes a key at once and for later starts; false when it was not there. Throws SshError while
   * this server does not run. */
  removeKey(key: string): boolean {
    this.#needRunning();
    this.#table.remove(key);
    return library().plue_ssh_keys_remove(text(key));
  }

  /** Puts `keys` in the place of the whole table, all or nothing; also for later starts. */
  replaceKeys(keys: NonNullable<Options["keys"]>): void {
    const table = new Table(keys);
    if (running === this) table.putInForce();
    this.#table = table;
  }

  /** The library has one table: that of the server that runs. */
  #needRunning(): void {
    if (running === this) return;
    throw new SshError("this GitServer does not run: start() it first, or use replaceKeys");
  }

  #listen(): void {
    library().plue_ssh_set_decision_notify(arrived().ptr);
    library().plue_ssh_set_event_notify(arrived().ptr);
    library().plue_ssh_set_push_notify(arrived().ptr);
    taking = () => this.#take();
    this.#poll = setInterval(taking, POLL_MS);
  }

  #unlisten(): void {
    clearInterval(this.#poll);
    taking = undefined;
  }

  /** Takes all questions, events and pushes that have arrived. */
  #take(): void {
    const lib = library();
    const record = ptr(this.#record);
    for (let id; (id = lib.plue_ssh_decision_next(record, RECORD_MAX)) !== 0; ) {
      void this.#answer(id, JSON.parse(new CString(record).toString()));
    }
    for (let length; (length = lib.plue_ssh_event_next(record, RECORD_MAX)) !== 0; ) {
      const event = JSON.parse(this.#filled(length));
      try {
        this.#options.onEvent?.(event);
      } catch (error) {
        this.#report(error);
      }
    }
    this.#tell();
  }

  #tell(): void {
    if (this.#options.onPush === undefined) return;
    telling ??= this.#tellAll().finally(() => (telling = undefined));
  }

  async #tellAll(): Promise<void> {
    for (let push; (push = this.#oldestPush()) !== undefined; ) {
      try {
        await this.#options.onPush?.(push);
      } catch (error) {
        this.#report(error);
      }
      library().plue_ssh_push_done(push.id);
    }
  }

  #oldestPush(): (Push & { id: number }) | undefined {
    for (;;) {
      const capacity = this.#notice.length;
      const length = library().plue_ssh_push_next(ptr(this.#notice), capacity);
      if (length === 0) return undefined;
      if (length < capacity) {
        return JSON.parse(new TextDecoder().decode(this.#notice.subarray(0, length)));
      }
      this.#notice = new Uint8Array(length + 1);
    }
  }

  async #answer(id: number, question: Question): Promise<void> {
    let allow = false;
    let principal: Buffer | null = null;
    try {
      if (question.kind === "authenticate") {
        const name = await this.#options.authenticate?.(question.user, question.key);
        // An empty name would become the key's fingerprint: only a real one lets anybody in.
        allow = typeof name === "string" && name.length > 0;
        if (allow) principal = text(name as string);
      } else {
        const { principal: who, repository, write } = question;
        allow = (await this.#options.authorize?.(who, repository, write)) === true;
      }
    } catch (error) {
      allow = false;
      this.#report(error);
    }
    // False when it came too late, which has been counted and refused.
    library().plue_ssh_decision_reply(id, allow, principal);
  }

  #report(error: unknown): void {
    (this.#options.onError ?? console.error)(error);
  }

  #filled(length: number): string {
    check(length > 0);
    return new TextDecoder().decode(this.#record.subarray(0, length));
  }
}

/** The version of libplue_ssh, and that of the libssh it runs on. */
export const version = (): string => string(library().plue_ssh_version());
export const libsshVersion = (): string => string(library().plue_ssh_libssh_version());

/** A NUL-terminated argument; a NUL inside would silently cut it off. */
function text(value: string): Buffer {
  if (value.includes("\0")) throw new SshError("a NUL character in a string for plue_ssh");
  return Buffer.from(`${value}\0`);
}

function check(done: boolean): void {
  if (!done) throw new SshError(lastError());
}

function lastError(): string {
  return string(library().plue_ssh_last_error());
}

function string(pointer: unknown): string {
  return pointer === null ? "" : new CString(pointer as Pointer).toString();
}
