/**
 * Signing and verifying HS256 tokens under Bun, side by side in one run: plue_jwt, fast-jwt without
 * its cache, and jose, one by one and with 64 calls in flight.
 *
 *     bun bench_jwt.ts          a table
 *     bun bench_jwt.ts --json   the nanoseconds, for another program
 */

import { createSigner, createVerifier } from "fast-jwt";
import { jwtVerify, SignJWT } from "jose";
import { cpuPath, Key } from "./plue_jwt.ts";

const secret = "a secret of at least thirty-two bytes";
const bytes = new TextEncoder().encode(secret);
const claims = { sub: "1234567890", name: "Ann Muster", iat: 1516239022, a: 1 };
const rounds = 9;
const roundNs = 60e6;
const inFlight = 64;

type Call = () => unknown;
interface Row {
  name: string;
  sign: number;
  verify: number;
}

/** Nanoseconds per call: the best of the rounds, since disturbance only ever adds. */
function best(call: Call): number {
  let ns = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= rounds; round++) {
    const start = Bun.nanoseconds();
    let calls = 0;
    while (Bun.nanoseconds() - start < roundNs) {
      for (let i = 0; i < 100; i++) call();
      calls += 100;
    }
    ns = Math.min(ns, (Bun.nanoseconds() - start) / calls);
  }
  return ns;
}

async function bestOfMany(call: () => Promise<unknown>, together: number): Promise<number> {
  let ns = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= rounds; round++) {
    const start = Bun.nanoseconds();
    let calls = 0;
    while (Bun.nanoseconds() - start < roundNs) {
      await Promise.all(Array.from({ length: together }, call));
      calls += together;
    }
    ns = Math.min(ns, (Bun.nanoseconds() - start) / calls);
  }
  return ns;
}

const key = new Key(secret);
const token = key.sign(claims);
const fastSign = createSigner({ key: secret, algorithm: "HS256" });
const fastVerify = createVerifier({ key: secret, algorithms: ["HS256"], cache: false });
// jose prepares a key once when it is given a CryptoKey.
const cryptoKey = await crypto.subtle.importKey(
  "raw",
  bytes,
  { name: "HMAC", hash: "SHA-256" },
  false,
  ["sign", "verify"],
);
const joseSign = () =>
  new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(cryptoKey);
const joseVerify = () => jwtVerify(token, cryptoKey, { algorithms: ["HS256"] });

// A comparison means nothing between programs that do different things.
for (const text of [fastSign(claims), await joseSign()]) {
  if (JSON.stringify(key.verify(text)) !== JSON.stringify(claims)) throw new Error("no interchange");
}

const rows: Row[] = [
  {
    name: "plue_jwt",
    sign: best(() => key.sign(claims)),
    verify: best(() => key.verify(token)),
  },
  {
    name: "fast-jwt",
    sign: best(() => fastSign(claims)),
    verify: best(() => fastVerify(token)),
  },
  {
    name: `jose, ${inFlight} in flight`,
    sign: await bestOfMany(joseSign, inFlight),
    verify: await bestOfMany(joseVerify, inFlight),
  },
  {
    name: "jose, one by one",
    sign: await bestOfMany(joseSign, 1),
    verify: await bestOfMany(joseVerify, 1),
  },
];

if (process.argv.includes("--json")) {
  console.log(JSON.stringify(rows));
} else {
  const ours = rows[0]!;
  console.log(`Bun ${Bun.version}, object to string and back, ${cpuPath}; times: plue_jwt is faster`);
  console.log("");
  console.log("                       sign ns    times  verify ns    times");
  for (const row of rows) {
    const cells = [row.sign, row.sign / ours.sign, row.verify, row.verify / ours.verify];
    const text = cells.map((value, i) => value.toFixed(i % 2).padStart(i % 2 ? 9 : 10)).join("");
    console.log(row.name.padEnd(20) + text);
  }
}
