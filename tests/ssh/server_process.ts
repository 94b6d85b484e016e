// The same process as server_process.py, under Bun: every decision goes through the async queue.

import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { GitServer } from "../../bun/plue_ssh.ts";

interface Person {
  keys: string[];
  rules: string[];
}

const options = JSON.parse(process.argv[2] as string);
const people: Record<string, Person> = options.people;
const owners = new Map<string, string>();
for (const [name, person] of Object.entries(people)) {
  for (const key of person.keys) owners.set(key.split(" ").slice(0, 2).join(" "), name);
}

function allowed(rules: string[], repository: string, write: boolean): boolean {
  return rules.some((rule) => {
    const [access, pattern] = rule.split(" ") as [string, string];
    const matches = pattern.endsWith("*")
      ? repository.startsWith(pattern.slice(0, -1))
      : repository === pattern;
    return matches && (access === "write" || !write);
  });
}

const note = (event: object) => appendFileSync(options.events, `${JSON.stringify(event)}\n`);
const server = new GitServer(options.repositories, {
  port: 0,
  hostKey: options.host_key,
  settings: options.settings,
  authenticate: async (user, key) => {
    await Bun.sleep(1);
    return user === "git" ? (owners.get(key) ?? null) : null;
  },
  authorize: async (who, repository, write) => {
    await Bun.sleep(1);
    return allowed(people[who]?.rules ?? [], repository, write);
  },
  onPush: options.pushes
    ? async (push) => {
        await Bun.sleep(1000 * (options.pushes.delay_s ?? 0));
        if (push.repository.endsWith("raise")) throw new Error("as the test wants");
        appendFileSync(options.pushes.path, `${JSON.stringify(push)}\n`);
      }
    : undefined,
  onEvent: note,
  onError: (error) => note({ event: "log", text: String(error) }),
});
server.start();
console.log(JSON.stringify({ port: server.port, pid: process.pid }));
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "counters") console.log(JSON.stringify(server.counters()));
  else if (line === "stop") {
    const begun = performance.now();
    let turns = 0;
    const turning = setInterval(() => turns++, 10);
    await server.stop();
    clearInterval(turning);
    console.log(JSON.stringify({ stopped_s: (performance.now() - begun) / 1000, turns }));
  } else if (line === "start") {
    server.start();
    console.log(JSON.stringify({ port: server.port }));
  } else console.log(JSON.stringify({ error: `unknown request ${line}` }));
}
await server.stop();
await server.pushesTold();
process.exit(0);
