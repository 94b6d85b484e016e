/**
 * Rate limits in memory for Bun on libplue_ratelimit, the library that Python uses too.
 *
 *     const limiter = new RateLimiter(100, 60_000); // 100 requests a minute for each key
 *     if (!limiter.check(address)) return new Response("Too many requests", { status: 429 });
 *     const { allowed, remaining, retryAfterMs } = limiter.hit(user);
 *
 * With `{ shared: "/run/app/limits" }` all processes of the host that name this file, Bun and
 * Python alike, enforce one limit together. Everything is synchronous; times are in milliseconds.
 */

import { dlopen, ptr, suffix } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Every export of the library with the types of plue_ratelimit.h; `pyplue.ffi` has the same. */
export const symbols = {
  ratelimit_init: { args: ["u32", "u64"], returns: "bool" },
  ratelimit_check: { args: ["ptr"], returns: "bool" },
  ratelimit_reset: { args: ["ptr"], returns: "void" },
  ratelimit_cleanup: { args: [], returns: "u32" },
  ratelimit_get_remaining: { args: ["ptr"], returns: "u32" },
  ratelimit_destroy: { args: [], returns: "void" },
  ratelimit_count: { args: [], returns: "u32" },
  ratelimit_create: { args: ["u32", "u32", "u64", "u32", "u32"], returns: "u32" },
  ratelimit_open_shared: { args: ["ptr", "u32", "u32", "u64", "u32", "u32"], returns: "u32" },
  ratelimit_close: { args: ["u32"], returns: "bool" },
  ratelimit_check_key: { args: ["u32", "ptr", "u32", "u32"], returns: "bool" },
  ratelimit_check_text: { args: ["u32", "ptr"], returns: "bool" },
  ratelimit_hit: { args: ["u32", "ptr", "u32", "u32", "ptr"], returns: "i32" },
  ratelimit_peek: { args: ["u32", "ptr", "u32", "u32", "ptr"], returns: "i32" },
  ratelimit_refund: { args: ["u32", "ptr", "u32", "u32"], returns: "bool" },
  ratelimit_hit_at: { args: ["u32", "ptr", "u32", "u32", "u64", "ptr"], returns: "i32" },
  ratelimit_peek_at: { args: ["u32", "ptr", "u32", "u32", "u64", "ptr"], returns: "i32" },
  ratelimit_refund_at: { args: ["u32", "ptr", "u32", "u32", "u64"], returns: "bool" },
  ratelimit_check_many: {
    args: ["u32", "ptr", "u64", "ptr", "u32", "u32", "ptr"],
    returns: "i32",
  },
  ratelimit_reset_key: { args: ["u32", "ptr", "u32"], returns: "bool" },
  ratelimit_clear: { args: ["u32"], returns: "bool" },
  ratelimit_sweep: { args: ["u32"], returns: "u32" },
  ratelimit_key_count: { args: ["u32"], returns: "u32" },
  ratelimit_bytes: { args: ["u32"], returns: "u64" },
  ratelimit_hit_rule: {
    args: ["u32", "ptr", "u32", "u32", "u32", "u32", "u64", "ptr"],
    returns: "i32",
  },
  ratelimit_peek_rule: {
    args: ["u32", "ptr", "u32", "u32", "u32", "u32", "u64", "ptr"],
    returns: "i32",
  },
  ratelimit_read_window: { args: ["u32", "ptr", "u32", "u64", "ptr"], returns: "i32" },
  ratelimit_hit_log: { args: ["u32", "ptr", "u32", "u32", "u32", "u64"], returns: "bool" },
  ratelimit_read_log: { args: ["u32", "ptr", "u32", "u32", "u64", "ptr"], returns: "i32" },
  ratelimit_last_error: { args: [], returns: "i32" },
  ratelimit_last_errno: { args: [], returns: "i32" },
  ratelimit_error_name: { args: ["i32"], returns: "cstring" },
  ratelimit_version: { args: [], returns: "cstring" },
} as const;

/** The library file: $PLUE_RATELIMIT_LIBRARY, or the one beside this file, or of this source tree. */
export const libraryPath = findLibrary();

function findLibrary(): string {
  const given = process.env["PLUE_RATELIMIT_LIBRARY"];
  if (given) return given;
  const file = `libplue_ratelimit.${suffix}`;
  const folders = ["lib", "../pyplue/_native", "../zig-out/lib", "../zig/ratelimit/zig-out/lib"];
  const found = folders.map((folder) => join(import.meta.dir, folder, file)).find(existsSync);
  if (found) return found;
  throw new Error(`${file} is not built: run "zig build" or set PLUE_RATELIMIT_LIBRARY to its path`);
}

const native = dlopen(libraryPath, symbols).symbols;

/** Version of the library, for example "0.1.0". */
export const version = String(native.ratelimit_version());

/** Longest key in bytes of UTF-8. */
export const maxKeyBytes = 1024;

const algorithms = { "sliding-window": 0, gcra: 1, "token-bucket": 1, "fixed-window": 2 } as const;
const policies = { deny: 0, overflow: 1, allow: 2 } as const;

export type Algorithm = keyof typeof algorithms;
export type WhenFull = keyof typeof policies;

export interface RateLimiterOptions {
  /** Default "sliding-window". */
  algorithm?: Algorithm;
  /** Keys held at most; default 1,000,000. */
  maxKeys?: number;
  /** What happens to unknown keys when maxKeys live ones are held; default "deny". */
  whenFull?: WhenFull;
  /** Path of a file whose table all processes of this host share that open it. */
  shared?: string;
}

/** The answer to one request. */
export interface Decision {
  allowed: boolean;
  limit: number;
  remaining: number;
  /** 0 when allowed; Infinity when the cost exceeds the limit. */
  retryAfterMs: number;
  /** Until the whole limit is available again. */
  resetAfterMs: number;
  /** The table is full and the key is not in it: the policy has answered. */
  tableFull: boolean;
}

/** What the library could not do; `code` is a name of plue_ratelimit.h in lower case. */
export class RateLimitError extends Error {
  override name = "RateLimitError";
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

const causes: Record<string, string> = {
  no_limiter: "the limiter is closed, or none was initialized",
  zero_window: "the window must be longer than 0 ms",
  zero_cost: "the cost must be 1 or more",
  key_too_long: `a key has at most ${maxKeyBytes} bytes: pass a hash of longer ones`,
  options: "unknown algorithm or policy, or maxKeys not from 1 to 67108864",
  too_many_limiters: "4096 limiters are open: close some",
  not_a_file: "the shared path is not a regular file",
  not_owner: "the shared file belongs to another user",
  mode: "others may access the shared file: chmod 600",
  format: "the shared file is damaged, or of another version: remove it",
  size: "the shared file was made for another maxKeys: use that, or remove the file",
  in_use: "processes that see another boot id have the shared file open",
};

function lastError(): RateLimitError {
  const code = native.ratelimit_last_error();
  const name = String(native.ratelimit_error_name(code));
  const errno = name === "system" ? ` (errno ${native.ratelimit_last_errno()})` : "";
  return new RateLimitError(name, `${causes[name] ?? name}${errno}`);
}

// One buffer for the keys of all calls: JavaScript calls one at a time, and a fresh buffer for each
// would cost more than the check.
const keyBuffer = new Uint8Array(new ArrayBuffer(3 * maxKeyBytes + 1));
const keyPointer = ptr(keyBuffer);
const encoder = new TextEncoder();
const shortKey = 64;

// The key that the buffer holds: in a burst the same comes again and again.
let heldKey = "";
let heldLength = 0;

/** Writes the key to the buffer and returns its length in bytes. */
function putKey(key: string): number {
  if (key === heldKey) return heldLength;
  heldLength = writeKey(key);
  heldKey = key;
  return heldLength;
}

function writeKey(key: string): number {
  // Until all of it is written the buffer holds no key.
  heldKey = "";
  heldLength = 0;
  const length = key.length;
  if (length <= shortKey) {
    let i = 0;
    for (; i < length; i++) {
      const code = key.charCodeAt(i);
      if (code > 127) break;
      keyBuffer[i] = code;
    }
    if (i === length) return length;
  }
  const { read, written } = encoder.encodeInto(key, keyBuffer);
  if (read < length || written > maxKeyBytes)
    throw new RateLimitError("key_too_long", causes["key_too_long"]!);
  return written;
}

function putText(key: string): void {
  const length = putKey(key);
  if (key.includes("\0"))
    throw new RateLimitError("key_with_nul", "a C string cannot hold a NUL: use RateLimiter");
  keyBuffer[length] = 0;
}

// Over one ArrayBuffer made beforehand: a small array that gets its own later moves.
const decisionBytes = new ArrayBuffer(32);
const decisionWords = new Uint32Array(decisionBytes);
const decisionTimes = new BigUint64Array(decisionBytes, 16, 2);
const decisionPointer = ptr(decisionBytes);
const never = 0xffff_ffff_ffff_ffffn;

function decision(): Decision {
  const retry = decisionTimes[0]!;
  return {
    allowed: decisionWords[0] === 1,
    limit: decisionWords[1]!,
    remaining: decisionWords[2]!,
    retryAfterMs: retry === never ? Infinity : Number(retry),
    resetAfterMs: Number(decisionTimes[1]!),
    tableFull: decisionWords[3] === 1,
  };
}

function wholeNumber(value: number, name: string, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most)
    throw new RangeError(`${name} must be a whole number from ${least} to ${most}, not ${value}`);
  return value;
}

const maxU32 = 0xffff_ffff;

/** At most `maxRequests` per `windowMs` for each key. */
export class RateLimiter {
  readonly #handle: number;

  constructor(maxRequests: number, windowMs: number, options: RateLimiterOptions = {}) {
    const algorithm = algorithms[options.algorithm ?? "sliding-window"];
    const policy = policies[options.whenFull ?? "deny"];
    if (algorithm === undefined) throw new RangeError(`no algorithm is called ${options.algorithm}`);
    if (policy === undefined) throw new RangeError(`no policy is called ${options.whenFull}`);
    const limit = wholeNumber(maxRequests, "maxRequests", 0, maxU32);
    const window = wholeNumber(windowMs, "windowMs", 1, Number.MAX_SAFE_INTEGER);
    const maxKeys = wholeNumber(options.maxKeys ?? 1_000_000, "maxKeys", 1, 67_108_864);
    if (options.shared === undefined) {
      this.#handle = native.ratelimit_create(algorithm, limit, window, maxKeys, policy);
    } else {
      const path = Buffer.from(`${options.shared}\0`);
      this.#handle = native.ratelimit_open_shared(
        ptr(path), algorithm, limit, window, maxKeys, policy,
      );
    }
    if (this.#handle === 0) throw lastError();
  }

  /** True: the request passes, and is counted. */
  check(key: string, cost = 1): boolean {
    if (native.ratelimit_check_key(this.#handle, keyPointer, putKey(key), cost)) return true;
    const code = native.ratelimit_last_error();
    if (code !== 0) throw errorOf(code);
    return false;
  }

  /** As `check`, with what is left and when to come again. */
  hit(key: string, cost = 1): Decision {
    const length = putKey(key);
    if (native.ratelimit_hit(this.#handle, keyPointer, length, cost, decisionPointer) !== 0)
      throw lastError();
    return decision();
  }

  /** What `hit` would answer; counts nothing. */
  peek(key: string, cost = 1): Decision {
    const length = putKey(key);
    if (native.ratelimit_peek(this.#handle, keyPointer, length, cost, decisionPointer) !== 0)
      throw lastError();
    return decision();
  }

  /**
   * Takes back a request that passed just now, where it turns out that it should not count. Not for
   * one whose `resetAfterMs` has gone by: it counts no more, and another would be taken back.
   */
  refund(key: string, cost = 1): void {
    if (!native.ratelimit_refund(this.#handle, keyPointer, putKey(key), cost)) throw lastError();
  }

  /** One verdict for each key, in one call; the keys are checked in order. */
  checkMany(keys: readonly string[], cost = 1): boolean[] {
    if (keys.length === 0) return [];
    const encoded = keys.map((key) => encoder.encode(key));
    const bytes = Buffer.concat([...encoded, new Uint8Array(1)]);
    const lengths = Uint32Array.from(encoded, (key) => key.length);
    const verdicts = new Uint8Array(keys.length);
    const passed = native.ratelimit_check_many(
      this.#handle, ptr(bytes), bytes.length - 1, ptr(lengths), keys.length, cost, ptr(verdicts),
    );
    if (passed < 0) throw lastError();
    return Array.from(verdicts, (verdict) => verdict === 1);
  }

  /** Requests that would pass now; counts nothing. */
  remaining(key: string): number {
    return this.peek(key).remaining;
  }

  /** Forgets the key. */
  reset(key: string): void {
    if (!native.ratelimit_reset_key(this.#handle, keyPointer, putKey(key))) throw lastError();
  }

  /** Removes entries whose windows have passed and returns how many. Nobody has to call this. */
  cleanup(): number {
    return native.ratelimit_sweep(this.#handle);
  }

  /** Entries held, those not yet cleaned up included. */
  get size(): number {
    return native.ratelimit_key_count(this.#handle);
  }

  /** Frees the table; a shared file stays. From then on calls throw. */
  close(): void {
    native.ratelimit_close(this.#handle);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function errorOf(code: number): RateLimitError {
  const name = String(native.ratelimit_error_name(code));
  return new RateLimitError(name, causes[name] ?? name);
}

// ---- one limiter for the process ------------------------------------------------------------

/** Makes the limiter of the functions below, or replaces it; false for a window of 0. */
export function ratelimitInit(maxRequests: number, windowMs: number): boolean {
  return native.ratelimit_init(maxRequests, windowMs);
}

/** True: the request passes, and is counted. False before init. */
export function ratelimitCheck(key: string): boolean {
  putText(key);
  return native.ratelimit_check(keyPointer);
}

export function ratelimitReset(key: string): void {
  putText(key);
  native.ratelimit_reset(keyPointer);
}

export function ratelimitCleanup(): number {
  return native.ratelimit_cleanup();
}

export function ratelimitGetRemaining(key: string): number {
  putText(key);
  return native.ratelimit_get_remaining(keyPointer);
}
