/**
 * HS256 JSON Web Tokens for Bun on libplue_jwt, the library that Python uses too.
 *
 *     const key = new Key(process.env.JWT_SECRET!);
 *     const token = key.sign({ sub: "ann" }, { expiresIn: "2 hours" });
 *     const claims = key.verify(token); // or throws a JwtError, whose code says why
 *
 * Names and options follow the npm package jose. Everything is synchronous: a call takes less time
 * than a promise. Times are in seconds.
 */

import { dlopen, suffix } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Every export of the library with the types of plue_jwt.h; `pyplue.ffi` has the same table. */
export const symbols = {
  jwt_init: { args: ["buffer", "u64"], returns: "bool" },
  jwt_sign: { args: ["buffer"], returns: "ptr" },
  jwt_verify: { args: ["buffer"], returns: "ptr" },
  jwt_free: { args: ["ptr"], returns: "void" },
  jwt_cleanup: { args: [], returns: "void" },
  jwt_last_error: { args: [], returns: "i32" },
  jwt_error_name: { args: ["i32"], returns: "cstring" },
  jwt_key_create: { args: ["buffer", "u64"], returns: "u32" },
  jwt_key_destroy: { args: ["u32"], returns: "bool" },
  jwt_sign_text: { args: ["u32", "buffer"], returns: "cstring" },
  jwt_verify_text: { args: ["u32", "buffer"], returns: "cstring" },
  jwt_sign_into: { args: ["u32", "buffer", "u64", "buffer", "u64"], returns: "i32" },
  jwt_verify_into: { args: ["u32", "buffer", "u64", "buffer", "u64"], returns: "i32" },
  jwt_verify_with: {
    args: ["buffer", "u64", "buffer", "u64", "buffer", "buffer", "u64", "buffer"],
    returns: "i32",
  },
  jwt_verify_batch: {
    args: ["u32", "buffer", "buffer", "u64", "buffer", "buffer", "u64", "buffer"],
    returns: "i64",
  },
  jwt_jws_sign: {
    args: ["u32", "buffer", "u64", "buffer", "u64", "buffer", "u64"],
    returns: "i32",
  },
  jwt_jws_verify: {
    args: ["buffer", "u64", "buffer", "u64", "buffer", "buffer", "u64", "buffer"],
    returns: "i32",
  },
  jwt_decode_unverified: { args: ["buffer", "u64", "u32", "buffer", "u64"], returns: "i32" },
  jwt_mac: { args: ["u32", "buffer", "u64", "buffer"], returns: "bool" },
  jwt_version: { args: [], returns: "cstring" },
  jwt_cpu_path: { args: [], returns: "cstring" },
  jwt_force_cpu_path: { args: ["buffer"], returns: "bool" },
} as const;

/** The library file: $PLUE_JWT_LIBRARY, or the one beside this file, or of this source tree. */
export const libraryPath = findLibrary();

function findLibrary(): string {
  const given = process.env["PLUE_JWT_LIBRARY"];
  if (given) return given;
  const file = `libplue_jwt.${suffix}`;
  const folders = ["lib", "../pyplue/_native", "../zig-out/lib", "../zig/jwt/zig-out/lib"];
  const paths = folders.map((folder) => join(import.meta.dir, folder, file));
  const found = paths.find(existsSync);
  if (found) return found;
  throw new Error(`${file} is not built: run "zig build" or set PLUE_JWT_LIBRARY to its path`);
}

const native = dlopen(libraryPath, symbols).symbols;

/** Version of the library, for example "0.1.0". */
export const version = String(native.jwt_version());

/** How the library computes SHA-256 on this CPU: "sha-ni", "sha2" or "scalar". */
export const cpuPath = String(native.jwt_cpu_path());

/** Why a token, a payload or a secret is refused; the names of plue_jwt.h in lower case. */
export type JwtErrorCode =
  | "empty_secret"
  | "secret_too_large"
  | "asymmetric_key"
  | "no_secret"
  | "unknown_key"
  | "key_count"
  | "options"
  | "too_large"
  | "segments"
  | "header_encoding"
  | "header_json"
  | "header_duplicate"
  | "algorithm"
  | "crit"
  | "b64"
  | "kid"
  | "typ"
  | "signature_encoding"
  | "signature"
  | "payload_encoding"
  | "payload_json"
  | "payload_depth"
  | "duplicate_claim"
  | "exp_type"
  | "nbf_type"
  | "iat_type"
  | "expired"
  | "not_yet_valid"
  | "issued_in_future"
  | "audience"
  | "issuer"
  | "subject"
  | "missing_claim";

const messages: Partial<Record<JwtErrorCode, string>> = {
  empty_secret: "the secret is empty",
  secret_too_large: "the secret is larger than 1 MiB",
  asymmetric_key: "the secret is a PEM, DER, OpenSSH or JWK key, which cannot be an HMAC secret",
  no_secret: "there is no secret yet: call init(secret) first",
  unknown_key: "the key was destroyed",
  key_count: "too many keys",
  too_large: "the token is or would be larger than the limit",
  segments: "not a token: it needs three parts separated by two dots",
  algorithm: "the algorithm is not HS256",
  crit: "the header asks for an extension (crit), and none is supported",
  signature: "the signature does not match: another secret, or a forged token",
  payload_json: "the payload is not one JSON object",
  expired: "the token has expired",
  not_yet_valid: "the token is not valid yet (nbf)",
  issued_in_future: "the token is issued in the future (iat): check the clocks",
};

/** A token, payload, secret or key that is refused; `code` says why. */
export class JwtError extends Error {
  override readonly name = "JwtError";

  constructor(
    readonly code: JwtErrorCode,
    message: string = messages[code] ?? `refused: ${code.replaceAll("_", " ")}`,
  ) {
    super(message);
  }
}

function errorOf(code: number): JwtError {
  return new JwtError(String(native.jwt_error_name(code)) as JwtErrorCode);
}

/** A payload: the registered claims of RFC 7519, section 4.1, and any others. */
export interface Claims {
  iss?: string;
  sub?: string;
  aud?: string | string[];
  exp?: number;
  nbf?: number;
  iat?: number;
  jti?: string;
  [name: string]: unknown;
}

export interface SignOptions {
  /** Sets `iat` to now and `exp` to this much later: seconds, or text such as "7d". */
  expiresIn?: number | string;
  /** Names the key in the token's header. */
  kid?: string;
  /** More header members. `alg` cannot be changed. */
  header?: Record<string, unknown>;
}

export interface VerifyOptions {
  /** One of these must be in `aud`. */
  audience?: string | string[];
  /** `iss` must be one of these. */
  issuer?: string | string[];
  /** `sub` must be this. */
  subject?: string;
  /** Claims that must be there. */
  requiredClaims?: string[];
  /** For `exp`, `nbf` and `iat`: seconds, or text such as "30s". 0 by default. */
  clockTolerance?: number | string;
  /** Instead of the system clock. */
  currentDate?: Date;
  /** Longest token, 64 KiB by default, 16 MiB at most. */
  maxTokenBytes?: number;
}

const defaultMaxTokenBytes = 65_536;
const largestMaxTokenBytes = 16 * 1024 * 1024;
const recommendedSecretBytes = 32;

/** Memory that the library reads from and writes to, kept for the next call. */
function room(bytes: number): Buffer {
  // With an ArrayBuffer of its own from the start: its bytes never move.
  return Buffer.from(new ArrayBuffer(bytes));
}

const input = room(defaultMaxTokenBytes + 4);
const output = room(defaultMaxTokenBytes);
const encoder = new TextEncoder();

/** Writes text to `input` as UTF-8. Its length, or an error when it does not fit. */
function write(text: string): number {
  const { read, written } = encoder.encodeInto(text, input);
  if (read !== text.length) throw new JwtError("too_large");
  return written;
}

function utf8(text: string | Uint8Array): Uint8Array {
  return typeof text === "string" ? Buffer.from(text, "utf8") : text;
}

const destroyed = new FinalizationRegistry<number>((handle) => native.jwt_key_destroy(handle));

/** A secret with its key work done: make one, keep it, use it for every token. */
export class Key {
  #handle: number;

  /**
   * @param secret at least 32 bytes (RFC 7518, 3.2); text is taken as UTF-8. It is copied.
   * @throws JwtError for an empty secret and for PEM, DER, OpenSSH and JWK keys
   */
  constructor(secret: string | Uint8Array) {
    const bytes = utf8(secret);
    // An empty typed array may have no memory at all.
    this.#handle = native.jwt_key_create(bytes.length > 0 ? bytes : input, bytes.length);
    if (this.#handle === 0) throw errorOf(native.jwt_last_error());
    destroyed.register(this, this.#handle, this);
    if (bytes.length < recommendedSecretBytes) {
      process.emitWarning(
        `the secret has ${bytes.length} bytes, HS256 needs 32 or more (RFC 7518, 3.2)`,
        "InsecureKeyLengthWarning",
      );
    }
  }

  /** The token for these claims. Throws a JwtError for claims that `verify` would refuse. */
  sign(claims: Claims, options?: SignOptions): string {
    const span = options?.expiresIn;
    const payload = jsonOf(span === undefined ? claims : expiring(claims, span));
    if (options?.kid !== undefined || options?.header !== undefined) {
      return signWithHeader(this.#handle, payload, headerOf(options));
    }
    const length = native.jwt_sign_into(this.#handle, input, write(payload), output, output.length);
    if (length < 0) throw errorOf(length);
    return output.toString("latin1", 0, length);
  }

  /**
   * The claims of a valid token. Throws a JwtError for every other one. Without options `aud`, `iss`
   * and `sub` are not compared: a token for another audience passes.
   */
  verify(token: string, options?: VerifyOptions): Claims {
    if (options !== undefined) return verifyWithKeys(token, [this], options).claims;
    if (typeof token !== "string") throw new JwtError("segments");
    const length = native.jwt_verify_into(
      this.#handle,
      input,
      write(token),
      output,
      output.length,
    );
    if (length < 0) throw errorOf(length);
    return JSON.parse(output.toString("utf8", 0, length));
  }

  /** Wipes the key; using it afterwards is an error. Also done when it is garbage-collected. */
  destroy(): void {
    destroyed.unregister(this);
    native.jwt_key_destroy(this.#handle);
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  static handleOf(key: Key): number {
    return key.#handle;
  }
}

/** The claims of a valid token, and which of the keys it was signed with. */
export interface Verified {
  claims: Claims;
  keyIndex: number;
}

/**
 * Verifies with the first of several keys whose signature matches, as rotation needs it: newest
 * first. Only a wrong signature leads to the next key, never an expired or malformed token. A `kid`
 * in the header is not looked at: to go by it, read it with `decodeUnverified` and give the one key
 * that it names.
 *
 * @param keys 1 to 64
 * @throws JwtError
 */
export function verifyWithKeys(token: string, keys: Key[], options: VerifyOptions = {}): Verified {
  if (typeof token !== "string") throw new JwtError("segments");
  const maxBytes = options.maxTokenBytes ?? defaultMaxTokenBytes;
  if (!Number.isInteger(maxBytes) || maxBytes < 1 || maxBytes > largestMaxTokenBytes) {
    throw new JwtError("options", `maxTokenBytes must be from 1 to ${largestMaxTokenBytes}`);
  }
  if (token.length > maxBytes) throw new JwtError("too_large");
  const bytes = room(Math.max(token.length * 3, 1));
  const { written } = encoder.encodeInto(token, bytes);
  const payload = room(Math.max(written, 1));
  const handles = new Uint32Array(Math.max(keys.length, 1));
  keys.forEach((key, i) => (handles[i] = Key.handleOf(key)));
  const index = new Int32Array(1);
  const length = native.jwt_verify_with(
    bytes,
    written,
    handles,
    keys.length,
    nativeOptions(options, maxBytes),
    payload,
    payload.length,
    index,
  );
  if (length < 0) throw errorOf(length);
  const claims: Claims = JSON.parse(payload.toString("utf8", 0, length));
  checkClaims(claims, options);
  return { claims, keyIndex: index[0]! };
}

/** struct jwt_options of plue_jwt.h. */
function nativeOptions(options: VerifyOptions, maxBytes: number): Uint8Array {
  const struct = new DataView(new ArrayBuffer(24));
  const systemClock = -(2n ** 63n);
  const now = options.currentDate;
  if (now !== undefined && Number.isNaN(now.getTime())) {
    throw new JwtError("options", "currentDate is no date");
  }
  const leeway = toSeconds(options.clockTolerance ?? 0);
  if (leeway < 0) throw new JwtError("options", "clockTolerance cannot be negative");
  struct.setBigInt64(0, now ? BigInt(Math.floor(now.getTime() / 1000)) : systemClock, true);
  struct.setBigInt64(8, BigInt(leeway), true);
  struct.setUint32(16, 7, true); // exp, nbf and iat
  struct.setUint32(20, maxBytes, true);
  return new Uint8Array(struct.buffer);
}

function checkClaims(claims: Claims, options: VerifyOptions): void {
  for (const name of options.requiredClaims ?? []) {
    if (!Object.hasOwn(claims, name)) {
      throw new JwtError("missing_claim", `the token has no claim ${name}`);
    }
  }
  const own = (name: string) => (Object.hasOwn(claims, name) ? claims[name] : undefined);
  if (options.issuer !== undefined && !listOf(options.issuer).includes(own("iss"))) {
    throw new JwtError("issuer", "the token's claim iss is not the one expected");
  }
  if (options.subject !== undefined && own("sub") !== options.subject) {
    throw new JwtError("subject", "the token's claim sub is not the one expected");
  }
  if (options.audience !== undefined) {
    const wanted = listOf(options.audience);
    if (!listOf(own("aud")).some((name) => typeof name === "string" && wanted.includes(name))) {
      throw new JwtError("audience", "the token's claim aud names nobody expected");
    }
  }
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [value];
}

/** Header and payload of a token that nobody has verified: for finding a `kid`, never for trust. */
export function decodeUnverified(token: string): { header: Claims; payload: unknown } {
  const bytes = utf8(token);
  const result = room(Math.max(bytes.length, 1));
  const part = (which: 0 | 1): string => {
    const source = bytes.length > 0 ? bytes : result;
    const length = native.jwt_decode_unverified(source, bytes.length, which, result, result.length);
    if (length < 0) throw errorOf(length);
    return result.toString("utf8", 0, length);
  };
  const header: Claims = JSON.parse(part(0));
  try {
    return { header, payload: JSON.parse(part(1)) };
  } catch (error) {
    if (error instanceof JwtError) throw error;
    throw new JwtError("payload_json");
  }
}

function jsonOf(claims: Claims): string {
  if (claims === null || typeof claims !== "object") throw new JwtError("payload_json");
  const text = JSON.stringify(claims);
  if (text === undefined) throw new JwtError("payload_json");
  return text;
}

function expiring(claims: Claims, expiresIn: number | string): Claims {
  const now = Math.floor(Date.now() / 1000);
  return { ...claims, iat: now, exp: now + toSeconds(expiresIn) };
}

function headerOf(options: SignOptions): string {
  const header: Record<string, unknown> = { typ: "JWT", ...options.header, alg: "HS256" };
  if (options.kid !== undefined) header["kid"] = options.kid;
  return JSON.stringify(header);
}

function signWithHeader(handle: number, payload: string, header: string): string {
  // The call for any header does not read the payload: let the one that does say what it thinks.
  const length = write(payload);
  const checked = native.jwt_sign_into(handle, input, length, output, output.length);
  if (checked < 0) throw errorOf(checked);
  const head = Buffer.from(header, "utf8");
  const signed = native.jwt_jws_sign(
    handle,
    head,
    head.length,
    input,
    length,
    output,
    output.length,
  );
  if (signed < 0) throw errorOf(signed);
  return output.toString("latin1", 0, signed);
}

const unitSeconds: Record<string, number> = {
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
  w: 604_800,
  y: 31_557_600, // 365.25 days
};
const spanText =
  /^([+-])? ?(\d+(?:\.\d+)?) ?(s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|weeks?|y|yrs?|years?)(?: (ago|from now))?$/i;

/** Whole seconds of a span as jose writes it: "7d", "2 hours", "1 week ago"; or of a number. */
export function toSeconds(duration: number | string): number {
  const match = typeof duration === "string" ? spanText.exec(duration) : null;
  let seconds = typeof duration === "number" ? Math.round(duration) : Number.NaN;
  if (match && !(match[1] && match[4])) {
    const unit = unitSeconds[match[3]!.charAt(0).toLowerCase()]!;
    seconds = Math.round(Number(match[2]) * unit);
    if (match[1] === "-" || match[4]?.toLowerCase() === "ago") seconds = -seconds;
  }
  if (!Number.isSafeInteger(seconds)) {
    throw new TypeError(`not a span of time: ${duration}; expected for example "7d" or "2 hours"`);
  }
  return seconds;
}

let current: Key | undefined;

/** Sets the secret of this process, or replaces it. An unfit secret throws; the earlier one stays. */
export function init(secret: string | Uint8Array): void {
  const key = new Key(secret);
  current?.destroy();
  current = key;
}

/** Signs with the secret of `init`. `iat` is set to now and `exp` to the end of `expiresIn`. */
export function sign(payload: Claims, expiresIn: number | string = "7d"): string {
  if (!current) throw new JwtError("no_secret");
  return current.sign(payload, { expiresIn });
}

/**
 * The claims of a token that is valid under the secret of `init`. Throws a JwtError otherwise. `aud`,
 * `iss` and `sub` are the caller's to compare.
 */
export function verify(token: string): Claims {
  if (!current) throw new JwtError("no_secret");
  return current.verify(token);
}
