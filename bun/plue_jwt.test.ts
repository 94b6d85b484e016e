/** Tests of plue_jwt.ts, and of libplue_jwt as Bun calls it. Run by `bun test`. */

import { afterAll, describe, expect, test } from "bun:test";
import { CString, dlopen, FFIType, ptr } from "bun:ffi";
import { join } from "node:path";
import { createSigner, createVerifier } from "fast-jwt";
import { jwtVerify, SignJWT } from "jose";
import {
  type Claims,
  decodeUnverified,
  init,
  JwtError,
  Key,
  libraryPath,
  sign,
  symbols,
  toSeconds,
  type VerifyOptions,
  verify,
  verifyWithKeys,
} from "./plue_jwt.ts";

const native = dlopen(libraryPath, symbols).symbols;
const testFolder = join(import.meta.dir, "..", "tests");
const secret = "a secret of at least thirty-two bytes";
const claims = { sub: "ann", name: "Ωmega 日本 😀", admin: false, n: [1, 2.5, null] };

/** The code of the JwtError that `call` throws, or "ok". Any other error is a failure. */
function codeOf(call: () => unknown): string {
  try {
    call();
    return "ok";
  } catch (error) {
    if (error instanceof JwtError) return error.code;
    throw error;
  }
}

interface Case {
  name: string;
  error?: string;
  token?: string;
  token_parts?: [string, number][];
  now_s?: number;
  leeway_s?: number;
  secret_base64?: string;
  secret_repeat?: [string, number];
  payload_base64?: string;
}

const table: {
  secret: string;
  refused_tokens: Case[];
  accepted_tokens: Case[];
  refused_secrets: Case[];
  refused_payloads: Case[];
} = await Bun.file(join(testFolder, "jwt", "refusals.json")).json();

function tokenOf(item: Case): string {
  return item.token ?? item.token_parts!.map(([text, times]) => text.repeat(times)).join("");
}

describe("the table of refusals", () => {
  const key = new Key(table.secret);

  /** Through the fast call where the clock does not matter, and through the one with options. */
  function verdict(item: Case): string {
    const options: VerifyOptions = { clockTolerance: item.leeway_s ?? 0 };
    if (item.now_s !== undefined) options.currentDate = new Date(item.now_s * 1000);
    const slow = codeOf(() => verifyWithKeys(tokenOf(item), [key], options));
    if (item.now_s === undefined) expect(codeOf(() => key.verify(tokenOf(item)))).toBe(slow);
    return slow;
  }

  test.each(table.refused_tokens.map((item) => [item.name, item] as const))("%s", (_, item) => {
    expect(verdict(item)).toBe(item.error!);
  });

  test.each(table.accepted_tokens.map((item) => [item.name, item] as const))(
    "accepted: %s",
    (_, item) => expect(verdict(item)).toBe("ok"),
  );

  test.each(table.refused_secrets.map((item) => [item.name, item] as const))(
    "secret: %s",
    (_, item) => {
      const [text, times] = item.secret_repeat ?? ["", 0];
      const bytes = Buffer.from(item.secret_base64!, "base64");
      const bad = times > 0 ? Buffer.from(text.repeat(times)) : bytes;
      expect(codeOf(() => new Key(bad))).toBe(item.error!);
      expect(codeOf(() => init(bad))).toBe(item.error!);
    },
  );

  test.each(table.refused_payloads.map((item) => [item.name, item] as const))(
    "payload: %s",
    (_, item) => {
      const handle = native.jwt_key_create(Buffer.from(secret), secret.length);
      const payload = Buffer.concat([Buffer.from(item.payload_base64!, "base64"), Buffer.alloc(1)]);
      const out = Buffer.alloc(4096);
      const code = native.jwt_sign_into(handle, payload, payload.length - 1, out, out.length);
      expect(String(native.jwt_error_name(code))).toBe(item.error!);
      native.jwt_key_destroy(handle);
    },
  );
});

describe("the four functions of the plan, declared as in the plan", () => {
  const plan = dlopen(libraryPath, {
    jwt_init: { args: [FFIType.ptr, FFIType.u64], returns: FFIType.bool },
    jwt_sign: { args: [FFIType.cstring], returns: FFIType.ptr },
    jwt_verify: { args: [FFIType.cstring], returns: FFIType.ptr },
    jwt_free: { args: [FFIType.ptr], returns: FFIType.void },
  });
  afterAll(() => native.jwt_cleanup());

  test("init, sign, verify, free", () => {
    const secretBytes = Buffer.from(secret);
    expect(plan.symbols.jwt_init(ptr(secretBytes), secretBytes.length)).toBe(true);

    const payload = Buffer.from(JSON.stringify(claims) + "\0");
    const signed = plan.symbols.jwt_sign(ptr(payload));
    expect(signed).not.toBeNull();
    const token = String(new CString(signed!));
    plan.symbols.jwt_free(signed);

    const read = plan.symbols.jwt_verify(ptr(Buffer.from(token + "\0")));
    expect(JSON.parse(String(new CString(read!)))).toEqual(claims);
    plan.symbols.jwt_free(read);

    const forged = Buffer.from(token.slice(0, -2) + "AA\0");
    expect(plan.symbols.jwt_verify(ptr(forged))).toBeNull();
    plan.symbols.jwt_free(null);
  });
});

describe("interchange", () => {
  const bytes = new TextEncoder().encode(secret);
  const key = new Key(secret);

  test("jose reads our tokens, we read jose's", async () => {
    const ours = key.sign(claims, { expiresIn: "1h", kid: "2026-07" });
    const read = await jwtVerify(ours, bytes, { algorithms: ["HS256"] });
    expect(read.payload).toEqual(key.verify(ours));
    expect(read.protectedHeader).toEqual({ alg: "HS256", typ: "JWT", kid: "2026-07" });

    const theirs = await new SignJWT(claims)
      .setProtectedHeader({ alg: "HS256" })
      .setIssuedAt()
      .setExpirationTime("2h")
      .sign(bytes);
    expect(key.verify(theirs)).toMatchObject(claims);
  });

  test("fast-jwt reads our tokens, we read fast-jwt's", () => {
    const read = createVerifier({ key: secret, algorithms: ["HS256"] });
    const ours = key.sign(claims, { expiresIn: 60 });
    expect(read(ours)).toEqual(key.verify(ours));
    const theirs = createSigner({ key: secret, algorithm: "HS256", expiresIn: 60_000 })(claims);
    expect(key.verify(theirs)).toMatchObject(claims);
  });

  test("an expired token is expired for all three", async () => {
    const ours = key.sign({ ...claims, exp: 1 });
    expect(codeOf(() => key.verify(ours))).toBe("expired");
    expect(jwtVerify(ours, bytes)).rejects.toThrow("exp");
    expect(() => createVerifier({ key: secret })(ours)).toThrow("expired");
  });
});

describe("Key", () => {
  const key = new Key(secret);

  test("what is signed verifies to the same claims", () => {
    expect(key.verify(key.sign(claims))).toEqual(claims);
    expect(key.verify(key.sign({}))).toEqual({});
    const text = 'quotes " \\ and controls \u0000\n\u001f, half a pair \ud800, \u2028';
    expect(key.verify(key.sign({ text }))).toEqual({ text });
  });

  test("claims that are no object, or hold wrong times, are not signed", () => {
    for (const wrong of [null, undefined, 1, "text", [], () => 1, true]) {
      expect(codeOf(() => key.sign(wrong as unknown as Claims))).toBe("payload_json");
    }
    expect(codeOf(() => key.sign({ exp: "soon" as unknown as number }))).toBe("exp_type");
    expect(codeOf(() => key.sign({ nbf: Number.NaN }))).toBe("nbf_type");
    expect(codeOf(() => key.sign({ text: "x".repeat(70_000) }))).toBe("too_large");
    expect(codeOf(() => key.sign({ text: "x".repeat(60_000) }))).toBe("too_large");
    expect(codeOf(() => key.sign(nested(200)))).toBe("payload_depth");
    expect(() => key.sign({ big: 1n })).toThrow(TypeError);
  });

  test("a token is text of ASCII: no other character stands for one", () => {
    const token = key.sign(claims);
    for (const [from, to] of [["e", "\u0165"], ["J", "\u014a"], ["A", "\uff21"]] as const) {
      const at = token.indexOf(from);
      if (at < 0) continue;
      const alias = token.slice(0, at) + to + token.slice(at + 1);
      expect(codeOf(() => key.verify(alias))).not.toBe("ok");
      expect(codeOf(() => verifyWithKeys(alias, [key]))).not.toBe("ok");
    }
    for (const wrong of [`${token}\0`, `\0${token}`, token.replace(".", "\0."), `${token}\ud800`]) {
      expect(codeOf(() => key.verify(wrong))).not.toBe("ok");
    }
    for (const wrong of [undefined, null, 7, {}, Buffer.from(token)]) {
      expect(codeOf(() => key.verify(wrong as unknown as string))).toBe("segments");
      expect(codeOf(() => verifyWithKeys(wrong as unknown as string, [key]))).toBe("segments");
    }
  });

  test("a huge token is refused, up to any size", () => {
    for (const size of [65_537, 65_541, 1 << 20, 1 << 25]) {
      expect(codeOf(() => key.verify("a".repeat(size)))).toBe("too_large");
      expect(codeOf(() => verifyWithKeys("a".repeat(size), [key]))).toBe("too_large");
    }
  });

  test("maxTokenBytes moves the bound both ways", () => {
    const head = Buffer.from('{"alg":"HS256"}');
    const body = Buffer.from(JSON.stringify({ text: "x".repeat(100_000) }));
    const out = Buffer.alloc(200_000);
    const length = native.jwt_jws_sign(
      Key.handleOf(key), head, head.length, body, body.length, out, out.length,
    );
    const token = out.toString("latin1", 0, length);
    expect(codeOf(() => key.verify(token))).toBe("too_large");
    expect(codeOf(() => key.verify(token, { maxTokenBytes: length - 1 }))).toBe("too_large");
    expect(key.verify(token, { maxTokenBytes: length })).toEqual({ text: "x".repeat(100_000) });
    for (const wrong of [0, -1, 1.5, Number.NaN, 1 << 25]) {
      expect(codeOf(() => key.verify(token, { maxTokenBytes: wrong }))).toBe("options");
    }
  });

  test("a destroyed key is an error, also twice", () => {
    const gone = new Key(secret);
    const token = gone.sign(claims);
    gone.destroy();
    gone.destroy();
    expect(codeOf(() => gone.sign(claims))).toBe("unknown_key");
    expect(codeOf(() => gone.verify(token))).toBe("unknown_key");
    expect(codeOf(() => verifyWithKeys(token, [key, gone]))).toBe("unknown_key");
    {
      using short = new Key(secret);
      expect(short.verify(token)).toEqual(claims);
    }
  });

  test("a short secret warns and works", async () => {
    const warned = new Promise<Error>((resolve) => process.once("warning", resolve));
    const short = new Key("short");
    expect((await warned).name).toBe("InsecureKeyLengthWarning");
    expect(short.verify(short.sign(claims))).toEqual(claims);
  });

  test("the header can be added to, but alg cannot be changed", () => {
    const token = key.sign(claims, { kid: "a", header: { typ: "at+jwt", alg: "none", x: 1 } });
    const { header, payload } = decodeUnverified(token);
    expect(header).toEqual({ typ: "at+jwt", alg: "HS256", x: 1, kid: "a" });
    expect(payload).toEqual(claims);
    expect(key.verify(token)).toEqual(claims);
    expect(codeOf(() => key.sign(claims, { header: { crit: ["x"] } }))).toBe("crit");
    expect(codeOf(() => key.sign({ exp: null as never }, { kid: "a" }))).toBe("exp_type");
  });
});

function nested(depth: number): Claims {
  let value: unknown = 1;
  for (let i = 0; i < depth; i++) value = [value];
  return { value };
}

describe("options", () => {
  const key = new Key(secret);

  test("issuer, subject, audience and required claims", () => {
    const token = key.sign({ iss: "me", sub: "ann", aud: ["a", "b"] });
    key.verify(token, { issuer: ["you", "me"], subject: "ann", audience: "b" });
    key.verify(token, { requiredClaims: ["iss", "aud"] });
    expect(codeOf(() => key.verify(token, { issuer: "you" }))).toBe("issuer");
    expect(codeOf(() => key.verify(token, { subject: "bob" }))).toBe("subject");
    expect(codeOf(() => key.verify(token, { audience: "c" }))).toBe("audience");
    expect(codeOf(() => key.verify(token, { requiredClaims: ["exp"] }))).toBe("missing_claim");
    const bare = key.sign({});
    expect(codeOf(() => key.verify(bare, { audience: "c" }))).toBe("audience");
    expect(codeOf(() => key.verify(bare, { issuer: "c" }))).toBe("issuer");
    expect(codeOf(() => key.verify(bare, { requiredClaims: ["toString"] }))).toBe("missing_claim");
  });

  test("times", () => {
    const token = key.sign({ exp: 1000 });
    const at = (s: number) => new Date(s * 1000);
    key.verify(token, { currentDate: at(999) });
    expect(codeOf(() => key.verify(token, { currentDate: at(1000) }))).toBe("expired");
    key.verify(token, { currentDate: at(1000), clockTolerance: "1s" });
    expect(codeOf(() => key.verify(token, { clockTolerance: -1 }))).toBe("options");
    expect(codeOf(() => key.verify(token, { currentDate: new Date("x") }))).toBe("options");
  });

  test("expiresIn sets iat and exp", () => {
    const before = Math.floor(Date.now() / 1000);
    const read = key.verify(key.sign({ sub: "ann", iat: 1 }, { expiresIn: "2 hours" }));
    expect(read.iat).toBeGreaterThanOrEqual(before);
    expect(read.exp).toBe(read.iat! + 7200);
  });

  test("spans of time", () => {
    for (const [text, seconds] of [
      ["7d", 604_800], ["2 hours", 7200], ["1y", 31_557_600], ["1.5h", 5400], ["30 MINS", 1800],
      ["1 week from now", 604_800], ["1 day ago", -86_400], ["-5m", -300], ["+ 5 m", 300],
    ] as const) {
      expect(toSeconds(text)).toBe(seconds);
    }
    expect(toSeconds(60)).toBe(60);
    for (const wrong of ["", "7", "d", "7x", "  7d", "7d ", "-1d ago", "1e3s", Number.NaN, Infinity]) {
      expect(() => toSeconds(wrong)).toThrow(TypeError);
    }
  });
});

describe("rotation", () => {
  const keys = [new Key(`new ${secret}`), new Key(secret), new Key(`old ${secret}`)];

  test("the key that matches is found and named", () => {
    keys.forEach((key, keyIndex) => {
      expect(verifyWithKeys(key.sign(claims), keys)).toEqual({ claims, keyIndex });
    });
    const other = new Key(`other ${secret}`).sign(claims);
    expect(codeOf(() => verifyWithKeys(other, keys))).toBe("signature");
    expect(codeOf(() => verifyWithKeys(other, []))).toBe("key_count");
    expect(codeOf(() => verifyWithKeys(other, new Array(65).fill(keys[0])))).toBe("key_count");
  });

  test("an expired token stays expired, whatever other keys there are", () => {
    const expired = keys[1]!.sign({ exp: 1 });
    expect(codeOf(() => verifyWithKeys(expired, keys))).toBe("expired");
  });
});

describe("one secret for the process", () => {
  test("before, during, after replacement", () => {
    expect(codeOf(() => sign(claims))).toBe("no_secret");
    expect(codeOf(() => verify("a.b.c"))).toBe("no_secret");
    init(secret);
    const token = sign(claims);
    const read = verify(token);
    expect(read).toMatchObject(claims);
    expect(read.exp! - read.iat!).toBe(7 * 86_400);
    expect(codeOf(() => init(""))).toBe("empty_secret");
    verify(token);
    init(`another ${secret}`);
    expect(codeOf(() => verify(token))).toBe("signature");
    expect(codeOf(() => verify(sign(claims, "-1s")))).toBe("expired");
  });
});

describe("vectors", () => {
  const out = Buffer.alloc(4096);

  test("Wycheproof's 40 HS256 cases, save four that are wrong in themselves", async () => {
    const file = await Bun.file(join(testFolder, "vectors", "wycheproof_jws.json")).json();
    let seen = 0;
    for (const group of file.testGroups) {
      if (group.private.kty !== "oct" || group.private.alg !== "HS256") continue;
      const bytes = Buffer.from(group.private.k, "base64url");
      const handle = new Uint32Array([native.jwt_key_create(bytes, bytes.length)]);
      for (const item of group.tests) {
        const text = typeof item.jws === "string" ? item.jws : JSON.stringify(item.jws);
        const token = Buffer.from(`${text}\0`);
        const options = new Uint8Array(24);
        options[16] = 7;
        const length = native.jwt_jws_verify(
          token, token.length - 1, handle, 1, options, out, out.length, new Int32Array(1),
        );
        // See tests/vectors/README.md.
        const wronglyValid = [372, 373].includes(item.tcId);
        const wronglyInvalid = [367, 370].includes(item.tcId);
        const valid = (item.result === "valid" && !wronglyValid) || wronglyInvalid;
        expect([item.tcId, length >= 0]).toEqual([item.tcId, valid]);
        seen += 1;
      }
      native.jwt_key_destroy(handle[0]!);
    }
    expect(seen).toBe(40);
  });

  test("RFC 7515, A.1", () => {
    const key = new Key(
      Buffer.from(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "base64url",
      ),
    );
    const token =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog" +
      "Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const currentDate = new Date(1_300_819_379_000);
    expect(key.verify(token, { currentDate })).toEqual({
      iss: "joe",
      exp: 1300819380,
      "http://example.com/is_root": true,
    });
    expect(codeOf(() => key.verify(token))).toBe("expired");
  });
});

describe("memory", () => {
  const slow = 60_000; // milliseconds: the machine may have other things to do

  test("every result is right while the garbage collector runs all the time", () => {
    const key = new Key(secret);
    const rounds = Number(process.env["PLUE_JWT_GC_ROUNDS"] ?? 600);
    for (let i = 0; i < rounds; i++) {
      const data = { i, text: "x".repeat(i % 300), list: [i, `${i}`] };
      const token = key.sign(data);
      if (i % 4 === 0) Bun.gc(true);
      const other = new Key(Buffer.from(`${secret} ${i}`));
      const signed = other.sign(data, { kid: `${i}` });
      if (i % 4 === 1) Bun.gc(true);
      expect(key.verify(token)).toEqual(data);
      expect(verifyWithKeys(signed, [key, other])).toEqual({ claims: data, keyIndex: 1 });
      if (i % 4 === 2) Bun.gc(true);
      expect(decodeUnverified(signed).payload).toEqual(data);
      if (i % 2 === 0) other.destroy();
    }
  }, slow);

  test("keys that nobody holds are given back: more than the table has room for", async () => {
    for (let i = 0; i < 70; i++) {
      for (let j = 0; j < 1000; j++) new Key(secret);
      Bun.gc(true);
      await Bun.sleep(0);
    }
    expect(new Key(secret).sign({})).toBeString();
  }, slow);

  test("signing and verifying leave no memory behind", () => {
    const key = new Key(secret);
    const many = (count: number) => {
      for (let i = 0; i < count; i++) key.verify(key.sign(claims));
      Bun.gc(true);
      return process.memoryUsage.rss();
    };
    many(50_000);
    const before = many(50_000);
    const grown = many(200_000) - before;
    expect(grown).toBeLessThan(32 * 1024 * 1024);
  }, slow);
});
