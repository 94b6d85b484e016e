/**
 * A check under Bun, side by side in one run: plue_ratelimit and the Map with a fixed window that
 * it replaces.
 *
 *     bun bench_ratelimit.ts          a table
 *     bun bench_ratelimit.ts --json   the nanoseconds, for another program
 */

import { RateLimiter } from "./plue_ratelimit.ts";

/** As rate limiters in TypeScript are written; it has no bound and is never cleaned up. */
class MapLimiter {
  readonly #windows = new Map<string, { count: number; resetAt: number }>();
  constructor(readonly limit: number, readonly windowMs: number) {}

  check(key: string): boolean {
    const now = Date.now();
    const window = this.#windows.get(key);
    if (window === undefined || now >= window.resetAt) {
      this.#windows.set(key, { count: 1, resetAt: now + this.windowMs });
      return true;
    }
    if (window.count >= this.limit) return false;
    window.count++;
    return true;
  }
}

const limit = 4_000_000_000;
const windowMs = 3_600_000;
const rounds = 60;
const roundChecks = 20_000;

const keyCounts = { "hot key": 1, "1,000 keys": 1000, "1,000,000 keys": 1_000_000 };
const results: Record<string, Record<string, number>> = {};

for (const [name, count] of Object.entries(keyCounts)) {
  const limiters = {
    "TypeScript Map": new MapLimiter(limit, windowMs),
    "plue sliding window": new RateLimiter(limit, windowMs, { maxKeys: 1_100_000 }),
    "plue fixed window": new RateLimiter(limit, windowMs, {
      algorithm: "fixed-window",
      maxKeys: 1_100_000,
    }),
  };
  // Keys as they come out of requests: strings of their own, in no order.
  const all = Array.from({ length: count }, (_, i) => `user:${(i * 7919) % count}`);
  for (const limiter of Object.values(limiters)) for (const key of all) limiter.check(key);
  const order = Array.from({ length: roundChecks }, () => 0);
  const best: Record<string, number> = {};
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < roundChecks; i++) order[i] = Math.floor(Math.random() * count);
    // Each has a turn in each round, so that a slow minute of the machine hits all.
    for (const [who, limiter] of Object.entries(limiters)) {
      const start = Bun.nanoseconds();
      for (let i = 0; i < roundChecks; i++) limiter.check(all[order[i]!]!);
      const each = (Bun.nanoseconds() - start) / roundChecks;
      best[who] = Math.min(best[who] ?? Number.POSITIVE_INFINITY, each);
    }
  }
  results[name] = best;
}

if (process.argv.includes("--json")) {
  console.log(JSON.stringify(results));
} else {
  for (const [name, best] of Object.entries(results)) {
    console.log(`${name}, ns a check`);
    for (const [who, ns] of Object.entries(best)) {
      const ratio = best["TypeScript Map"]! / ns;
      console.log(`  ${who.padEnd(22)} ${ns.toFixed(1).padStart(8)}   ${ratio.toFixed(2)} x`);
    }
  }
}
