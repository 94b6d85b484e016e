import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hono } from "hono";
import { addressKey, byAddress, rateLimit } from "./hono_ratelimit.ts";
import {
  RateLimiter,
  RateLimitError,
  ratelimitCheck,
  ratelimitCleanup,
  ratelimitGetRemaining,
  ratelimitInit,
  ratelimitReset,
  symbols,
  version,
} from "./plue_ratelimit.ts";

const folder = mkdtempSync(join(tmpdir(), "plue-"));
afterAll(() => rmSync(folder, { recursive: true }));

const hour = 3_600_000;

function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    if (error instanceof RateLimitError) return error.code;
    throw error;
  }
  return "no error";
}

describe("RateLimiter", () => {
  for (const algorithm of ["sliding-window", "gcra", "token-bucket", "fixed-window"] as const)
    test(`${algorithm} passes the limit and no more, for each key`, () => {
      using limiter = new RateLimiter(2, hour, { algorithm });
      expect([1, 2, 3].map(() => limiter.check("a"))).toEqual([true, true, false]);
      expect(limiter.check("b")).toBe(true);
      expect([limiter.remaining("a"), limiter.remaining("b"), limiter.size]).toEqual([0, 1, 2]);
      limiter.reset("a");
      expect(limiter.check("a")).toBe(true);
    });

  test("a decision says what is left and when to come again", () => {
    using limiter = new RateLimiter(10, hour, { algorithm: "fixed-window" });
    const first = limiter.hit("a", 4);
    expect(first).toMatchObject({ allowed: true, limit: 10, remaining: 6, retryAfterMs: 0 });
    const refused = limiter.hit("a", 7);
    expect(refused).toMatchObject({ allowed: false, remaining: 6, tableFull: false });
    expect(refused.retryAfterMs).toBeGreaterThan(hour - 10_000);
    expect(limiter.hit("a", 11).retryAfterMs).toBe(Infinity);
    limiter.refund("a", 4);
    expect(limiter.peek("a", 10).allowed).toBe(true);
  });

  test("keys are any text", () => {
    using limiter = new RateLimiter(1, hour);
    const keys = ["", "\0", "a\0b", "a\0c", "ü", "日本", "😀", "a", "x".repeat(64), "x".repeat(65)];
    keys.push("x".repeat(1024), "ü".repeat(512));
    expect(keys.map((key) => limiter.check(key))).toEqual(keys.map(() => true));
    expect(keys.map((key) => limiter.check(key))).toEqual(keys.map(() => false));
    expect(limiter.size).toBe(keys.length);
  });

  test("many keys at once are the same as one by one", () => {
    using batch = new RateLimiter(2, hour);
    using single = new RateLimiter(2, hour);
    const keys = ["a", "b", "a", "", "c\0d", "a", "日本"];
    expect(batch.checkMany(keys)).toEqual(keys.map((key) => single.check(key)));
    expect(batch.checkMany([])).toEqual([]);
  });

  test("bad input throws and lets nobody through", () => {
    expect(() => new RateLimiter(1, 0)).toThrow(RangeError);
    expect(() => new RateLimiter(-1, 1)).toThrow(RangeError);
    expect(() => new RateLimiter(1.5, 1)).toThrow(RangeError);
    expect(() => new RateLimiter(1, 1, { maxKeys: 0 })).toThrow(RangeError);
    expect(() => new RateLimiter(1, 1, { algorithm: "x" as never })).toThrow(RangeError);
    const limiter = new RateLimiter(1, hour);
    expect(codeOf(() => limiter.check("x".repeat(1025)))).toBe("key_too_long");
    expect(codeOf(() => limiter.check("ü".repeat(513)))).toBe("key_too_long");
    expect(codeOf(() => limiter.check("日".repeat(400)))).toBe("key_too_long");
    expect(codeOf(() => limiter.check("x".repeat(100_000)))).toBe("key_too_long");
    expect(codeOf(() => limiter.check("a", 0))).toBe("zero_cost");
    expect(codeOf(() => limiter.checkMany(["a", "x".repeat(1025)]))).toBe("key_too_long");
    limiter.close();
    expect(codeOf(() => limiter.check("a"))).toBe("no_limiter");
    expect(codeOf(() => limiter.hit("a"))).toBe("no_limiter");
    expect(codeOf(() => limiter.reset("a"))).toBe("no_limiter");
  });

  test("limiters on one file count together", () => {
    const shared = join(folder, "limits");
    using one = new RateLimiter(3, hour, { shared, maxKeys: 100 });
    using two = new RateLimiter(3, hour, { shared, maxKeys: 100 });
    expect([one.check("a"), two.check("a"), one.check("a"), two.check("a")]).toEqual([
      true, true, true, false,
    ]);
    expect(codeOf(() => new RateLimiter(3, hour, { shared, maxKeys: 101 }))).toBe("size");
    expect(codeOf(() => new RateLimiter(3, hour, { shared: folder }))).toBe("not_a_file");
    expect(existsSync(shared)).toBe(true);
  });

  test("a full table refuses new keys and keeps the old", () => {
    using limiter = new RateLimiter(2, hour, { maxKeys: 10 });
    for (let i = 0; i < 10; i++) expect(limiter.check(`known${i}`)).toBe(true);
    expect(limiter.check("new")).toBe(false);
    expect(limiter.hit("new").tableFull).toBe(true);
    expect(limiter.check("known0")).toBe(true);
  });

  test("expired entries are cleaned up", async () => {
    using limiter = new RateLimiter(2, 10);
    limiter.check("a");
    await Bun.sleep(60);
    expect(limiter.cleanup()).toBe(1);
    expect(limiter.size).toBe(0);
  });
});

test("the plan's five functions work on one limiter of the process", () => {
  expect(ratelimitCheck("early")).toBe(false);
  expect(ratelimitInit(1, 0)).toBe(false);
  expect(ratelimitInit(2, hour)).toBe(true);
  expect([1, 2, 3].map(() => ratelimitCheck("a"))).toEqual([true, true, false]);
  expect([ratelimitGetRemaining("a"), ratelimitGetRemaining("b")]).toEqual([0, 2]);
  ratelimitReset("a");
  expect(ratelimitCheck("a")).toBe(true);
  expect(ratelimitCleanup()).toBe(0);
  expect(codeOf(() => ratelimitCheck("a\0b"))).toBe("key_with_nul");
  expect(Object.keys(symbols)).toContain("ratelimit_check");
  expect(version).toMatch(/^\d+\.\d+\.\d+$/);
});

describe("the Hono example", () => {
  test("limits addresses, subjects and failed logins over real connections", async () => {
    using address = new RateLimiter(20, hour);
    using subject = new RateLimiter(2, hour);
    using login = new RateLimiter(3, hour);
    const app = new Hono<{ Variables: { subject: string | null } }>();
    app.use(rateLimit(address, hour, { key: byAddress, name: "address" }));
    app.use(async (context, next) => {
      context.set("subject", context.req.header("Authorization") ?? null);
      await next();
    });
    app.use(rateLimit(subject, hour, { key: (context) => context.get("subject"), name: "subject" }));
    app.use("/login", rateLimit(login, hour, { key: byAddress, name: "login", count: "failed" }));
    app.get("/", (context) => context.text("ok"));
    app.get("/login", (context) => {
      if (context.req.query("password") !== "right") return context.text("no", 401);
      return context.text("yes");
    });
    const server = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: app.fetch });
    const get = (path: string, headers = {}) => fetch(new URL(path, server.url), { headers });
    try {
      const ann = { Authorization: "ann" };
      const first = await get("/", ann);
      expect(first.status).toBe(200);
      expect(first.headers.get("RateLimit-Policy")).toBe(
        '"subject";q=2;w=3600, "address";q=20;w=3600',
      );
      expect(first.headers.get("RateLimit")).toMatch(
        /^"subject";r=1;t=\d+, "address";r=19;t=\d+$/,
      );
      expect((await get("/", ann)).status).toBe(200);
      const refused = await get("/", ann);
      expect(refused.status).toBe(429);
      expect(Number(refused.headers.get("Retry-After"))).toBeGreaterThan(0);
      expect(await refused.json()).toMatchObject({ "violated-policies": ["subject"] });
      expect((await get("/", { Authorization: "bob" })).status).toBe(200);

      for (let i = 0; i < 3; i++) {
        expect((await get("/login?password=right")).status).toBe(200);
        expect((await get("/login?password=wrong")).status).toBe(401);
      }
      expect((await get("/login?password=right")).status).toBe(429);
      const spoofed = { "X-Forwarded-For": "203.0.113.5" };
      expect((await get("/login?password=right", spoofed)).status).toBe(429);

      const rest = await Promise.all(Array.from({ length: 20 }, () => get("/")));
      expect(rest.filter((answer) => answer.status === 200).length).toBe(8);
    } finally {
      await server.stop(true);
    }
  });

  test("a late answer takes nothing back from the next window", async () => {
    const window = 200;
    using login = new RateLimiter(3, window, { algorithm: "fixed-window" });
    const app = new Hono();
    app.use(rateLimit(login, window, { key: () => "ann", count: "failed" }));
    app.get("/", async (context) => {
      await Bun.sleep(2 * window);
      login.hit("ann", 3);
      return context.text("slow");
    });
    expect((await app.request("/")).status).toBe(200);
    expect(login.remaining("ann")).toBe(0);
  });

  test("an address is IPv4, or the /64 of IPv6", () => {
    expect(addressKey("192.0.2.1")).toBe("192.0.2.1");
    expect(addressKey("::ffff:192.0.2.1")).toBe("192.0.2.1");
    expect(addressKey("2001:db8:1:2:3:4:5:6")).toBe("2001:db8:1:2::/64");
    expect(addressKey("2001:0db8::5")).toBe("2001:db8:0:0::/64");
    expect(addressKey("fe80::1%eth0")).toBe("fe80:0:0:0::/64");
    expect(addressKey("::1")).toBe("0:0:0:0::/64");
  });
});
