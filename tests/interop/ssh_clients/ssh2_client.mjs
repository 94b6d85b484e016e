// npm's ssh2 in the place of `ssh` for git: ssh2_client.mjs KEY KNOWN_HOSTS [ssh options].
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../bun/package.json", import.meta.url));
const { Client, utils } = require("ssh2");

const [key, knownHosts, ...rest] = process.argv.slice(2);
let port = 22;
while (rest[0].startsWith("-")) {
  const [option, value] = rest.splice(0, 2);
  if (option === "-p") port = Number(value);
}
const [username, host] = rest.shift().split("@");
const expected = utils.parseKey(readFileSync(knownHosts, "utf8").split(/\s+/).slice(1, 3).join(" "));

const client = new Client();
const fail = (error) => {
  console.error(String(error));
  process.exit(255);
};
client.on("error", fail);
client.on("ready", () => {
  const protocol = process.env.GIT_PROTOCOL;
  const options = protocol ? { env: { GIT_PROTOCOL: protocol } } : {};
  client.exec(rest.join(" "), options, (error, stream) => {
    if (error) return fail(error);
    let status = 255;
    stream.on("exit", (code) => (status = code ?? 255));
    stream.on("close", () => {
      client.end();
      process.exitCode = status;
      process.stdin.destroy();
    });
    process.stdin.pipe(stream);
    stream.pipe(process.stdout);
    stream.stderr.pipe(process.stderr);
  });
});
client.connect({
  host,
  port,
  username,
  privateKey: readFileSync(key),
  hostVerifier: (offered) => offered.equals(expected.getPublicSSH()),
});
