import { afterEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { GitServer, SshError } from "./plue_ssh.ts";
import type { Options } from "./plue_ssh.ts";

// The real git as its client is in tests/ssh, also for a server under Bun.

const folders: string[] = [];
const servers: GitServer[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server[Symbol.dispose]();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function make(keys: NonNullable<Options["keys"]>): GitServer {
  const folder = mkdtempSync("/tmp/plue-ssh.");
  folders.push(folder);
  const server = new GitServer(folder, { port: 0, hostKey: `${folder}/key`, keys });
  servers.push(server);
  return server;
}

/** The OpenSSH line of an ed25519 key. */
function line(number: number): string {
  const head = Buffer.from("\0\0\0\x0bssh-ed25519\0\0\0\x20", "latin1");
  return `ssh-ed25519 ${Buffer.concat([head, Buffer.alloc(32, number)]).toString("base64")}`;
}

const [first, second, third] = [line(1), line(2), line(3)];

test("what becomes of the keys is so after a restart as well", async () => {
  const server = make({ alice: [`${first} laptop`, second], bob: { keys: [third], rules: [] } });
  const restarted = async () => {
    await server.stop();
    return server.start().counters().keys;
  };
  server.start();
  expect(server.counters().keys).toBe(3);
  expect(server.removeKey(`${first} by another name`)).toBe(true);
  expect(server.removeKey(first)).toBe(false);
  expect(await restarted()).toBe(2);
  server.addKey("carol", first, ["read a/*\nread b/*"]);
  expect(await restarted()).toBe(3);
  expect(() => server.addKey("bob", first)).toThrow("belongs to another principal");
  expect(await restarted()).toBe(3);
  server.replaceKeys({ dora: second });
  expect(await restarted()).toBe(1);
  expect(() => server.replaceKeys({ dora: "nonsense" })).toThrow("not an OpenSSH public key");
  await server.stop();
  server.replaceKeys({ dora: [first, second] });
  expect(server.start().counters().keys).toBe(2);
});

test("a server that does not run leaves the keys of the one that does alone", () => {
  const server = make({ alice: [first, second] }).start();
  const other = make({ bob: third });
  expect(() => other.addKey("mallory", third, ["write *"])).toThrow(SshError);
  expect(() => other.removeKey(first)).toThrow("start() it first, or use replaceKeys");
  other.replaceKeys({});
  expect(server.counters().keys).toBe(2);
  server[Symbol.dispose]();
  expect(other.start().counters().keys).toBe(0);
});
