/**
 * Hono middleware on plue_ratelimit, an example to copy: a limit by address before anybody is known,
 * one by subject afterwards, and failed logins counted.
 *
 *     const app = new Hono();
 *     app.use(rateLimit(new RateLimiter(100, 60_000), 60_000, { key: byAddress }));
 */

import type { Context, MiddlewareHandler } from "hono";
import { getConnInfo } from "hono/bun";
import type { Decision, RateLimiter } from "./plue_ratelimit.ts";

export interface RateLimitOptions {
  /** Whom a request counts for; null for nobody. */
  key: (context: Context) => string | null;
  /** Name of the policy in the RateLimit fields; default "default". */
  name?: string;
  /** Which requests count; default "all". The others are taken back when they are answered. */
  count?: "all" | "failed" | "successful";
}

/** Answers 429 to requests over the limit; `windowMs` is the limiter's. */
export function rateLimit(
  limiter: RateLimiter,
  windowMs: number,
  { key, name = "default", count = "all" }: RateLimitOptions,
): MiddlewareHandler {
  const window = Math.ceil(windowMs / 1000);
  return async (context, next) => {
    const whom = key(context);
    if (whom === null) return next();
    const begun = performance.now();
    const decision = limiter.hit(whom);
    if (!decision.allowed) {
      const body = {
        type: "https://iana.org/assignments/http-problem-types#quota-exceeded",
        title: "Too many requests",
        status: 429,
        "violated-policies": [name],
      };
      const headers = { ...fields(name, window, decision), "Content-Type": problem };
      return context.body(JSON.stringify(body), 429, headers);
    }
    try {
      await next();
    } finally {
      const failed = context.error !== undefined || context.res.status >= 400;
      const counts = count === "all" || (count === "failed") === failed;
      // What counts no more, or under no key of its own, would be taken from other requests.
      const stands = performance.now() - begun < decision.resetAfterMs && !decision.tableFull;
      if (!counts && stands) limiter.refund(whom);
    }
    for (const [field, value] of Object.entries(fields(name, window, decision)))
      context.header(field, value, { append: field.startsWith("RateLimit") });
  };
}

const problem = "application/problem+json";

/** draft-ietf-httpapi-ratelimit-headers-11, Retry-After, and what older clients read. */
function fields(name: string, window: number, decision: Decision): Record<string, string> {
  const wait = decision.allowed ? decision.resetAfterMs : decision.retryAfterMs;
  const seconds = Number.isFinite(wait) ? Math.ceil(wait / 1000) : 0;
  const result: Record<string, string> = {
    "RateLimit-Policy": `"${name}";q=${decision.limit};w=${window}`,
    RateLimit: `"${name}";r=${decision.remaining};t=${seconds}`,
    "X-RateLimit-Limit": String(decision.limit),
    "X-RateLimit-Remaining": String(decision.remaining),
    "X-RateLimit-Reset": String(Math.ceil((Date.now() + decision.resetAfterMs) / 1000)),
  };
  if (!decision.allowed && Number.isFinite(wait)) result["Retry-After"] = String(seconds);
  return result;
}

/**
 * The address at the other end of the connection: IPv4 inside IPv6 as IPv4, IPv6 by its /64.
 * X-Forwarded-For is not looked at; behind a proxy take what your proxy is known to add.
 */
export function byAddress(context: Context): string {
  return addressKey(getConnInfo(context).remote.address ?? "unknown");
}

export function addressKey(address: string): string {
  const plain = address.split("%")[0]!;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain);
  if (mapped) return mapped[1]!;
  if (!plain.includes(":")) return plain;
  // The two halves of "::", with the zeroes between them written out.
  const [head, tail] = plain.split("::") as [string, string | undefined];
  const start = head === "" ? [] : head.split(":");
  const end = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeroes = tail === undefined ? 0 : Math.max(0, 8 - start.length - end.length);
  const groups = [...start, ...Array<string>(zeroes).fill("0"), ...end];
  return `${groups.slice(0, 4).map((group) => parseInt(group, 16).toString(16)).join(":")}::/64`;
}
