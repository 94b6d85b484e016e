// A Git server on npm's ssh2, as its README suggests: ssh2_server.mjs ROOT HOST_KEY KEYS.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../bun/package.json", import.meta.url));
const { Server, utils } = require("ssh2");
const [root, hostKey, keys] = process.argv.slice(2);
const known = readFileSync(keys, "utf8").trim().split("\n").map((line) => utils.parseKey(line));

const server = new Server({ hostKeys: [readFileSync(hostKey)] }, (client) => {
  client.on("error", () => {});
  client.on("authentication", (context) => {
    if (context.method !== "publickey") return context.reject(["publickey"]);
    const key = known.find((candidate) => context.key.data.equals(candidate.getPublicSSH()));
    if (key === undefined) return context.reject();
    if (context.signature && key.verify(context.blob, context.signature, context.hashAlgo) !== true) {
      return context.reject();
    }
    context.accept();
  });
  client.on("ready", () =>
    client.on("session", (acceptSession) => {
      const session = acceptSession();
      session.on("env", (accept) => accept?.());
      session.on("exec", (accept, reject, { command }) => {
        const [, service, path] = /^git-([a-z-]+) '(.*)'$/.exec(command);
        const stream = accept();
        const name = path.replace(/^\//, "").replace(/\.git$/, "");
        const git = spawn("git", [service, `${root}/${name}.git`]);
        stream.pipe(git.stdin);
        git.stdout.pipe(stream, { end: false });
        git.stderr.pipe(stream.stderr, { end: false });
        git.stdin.on("error", () => {});
        git.on("close", (code) => {
          stream.exit(code ?? 1);
          stream.end();
        });
      });
    }),
  );
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
