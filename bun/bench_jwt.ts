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
// Those of a session, as in the Python benchmark beside this one.
const claims = { sub: "1234567890", iat: 1516239022, exp: Math.floor(Date.now() / 1000) + 86_400 };
const rounds = 150;
const roundNs = 3e6;
const inFlight = 64;

/** Does the work some number of times and says how often. */
type Work = () => number | Promise<number>;

const oneByOne = (call: () => unknown): Work => () => {
  for (let i = 0; i < 100; i++) call();
  return 100;
};

const together = (call: () => Promise<unknown>, count: number): Work => async () => {
  await Promise.all(Array.from({ length: count }, call));
  return count;
};

/**
 * Nanoseconds per call: the best of the rounds, since disturbance only ever adds. Everybody has
 * a turn in each round, so that a slow minute of the machine hits all.
 */
async function measure(works: Work[]): Promise<number[]> {
  const best = works.map(() => Number.POSITIVE_INFINITY);
  for (let round = 0; round < rounds; round++) {
    for (const [i, work] of works.entries()) {
      const start = Bun.nanoseconds();
      let calls = 0;
      while (Bun.nanoseconds() - start < roundNs) calls += await work();
      best[i] = Math.min(best[i]!, (Bun.nanoseconds() - start) / calls);
    }
  }
  return best;
}

const key = new Key(secret);
const token = key.sign(claims);
const fastSign = createSigner({ key: secret, algorithm: "HS256" });
const fastVerify = createVerifier({ key: secret, algorithms: ["HS256"], cache: false });
// As in jose's own examples, the secret is bytes; a CryptoKey spares it the import per call.
const cryptoKey = await crypto.subtle.importKey(
  "raw",
  bytes,
  { name: "HMAC", hash: "SHA-256" },
  false,
  ["sign", "verify"],
);
const joseSign = (secretKey: Uint8Array | CryptoKey) => () =>
  new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(secretKey);
const joseVerify = (secretKey: Uint8Array | CryptoKey) => () =>
  jwtVerify(token, secretKey, { algorithms: ["HS256"] });

// A comparison means nothing between programs that do different things.
for (const text of [fastSign(claims), await joseSign(bytes)()]) {
  if (JSON.stringify(key.verify(text)) !== JSON.stringify(claims)) throw new Error("no interchange");
}

type Contestant = [name: string, sign: Work, verify: Work];

function jose(secretKey: Uint8Array | CryptoKey, count: number, what: string): Contestant {
  const name = `jose${what}, ${count === 1 ? "one by one" : `${count} in flight`}`;
  return [name, together(joseSign(secretKey), count), together(joseVerify(secretKey), count)];
}

const contestants: Contestant[] = [
  ["plue_jwt", oneByOne(() => key.sign(claims)), oneByOne(() => key.verify(token))],
  ["fast-jwt", oneByOne(() => fastSign(claims)), oneByOne(() => fastVerify(token))],
  jose(bytes, inFlight, ""),
  jose(bytes, 1, ""),
  jose(cryptoKey, inFlight, ", CryptoKey"),
];

const times = await measure(contestants.flatMap(([, sign, verify]) => [sign, verify]));
const rows = contestants.map(([name], i) => ({
  name,
  sign: times[2 * i]!,
  verify: times[2 * i + 1]!,
}));

if (process.argv.includes("--json")) {
  console.log(JSON.stringify(rows));
} else {
  const ours = rows[0]!;
  console.log(`Bun ${Bun.version}, object to string and back, ${cpuPath}; times: plue_jwt is faster`);
  console.log("");
  console.log(" ".repeat(33) + "sign ns    times verify ns    times");
  for (const row of rows) {
    const cells = [row.sign, row.sign / ours.sign, row.verify, row.verify / ours.verify];
    const text = cells.map((value, i) => value.toFixed(i % 2).padStart(i % 2 ? 9 : 10)).join("");
    console.log(row.name.padEnd(30) + text);
  }
}
