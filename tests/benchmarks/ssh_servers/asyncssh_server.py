"""A Git server on asyncssh: asyncssh_server.py ROOT HOST_KEY KEYS."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys

import asyncssh


async def handle(process: asyncssh.SSHServerProcess) -> None:
    service, path = shlex.split(process.command)
    directory = os.path.join(sys.argv[1], path.strip("/").removesuffix(".git") + ".git")
    git = await asyncio.create_subprocess_exec(
        "git",
        service.removeprefix("git-"),
        directory,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await process.redirect(stdin=git.stdin, stdout=git.stdout, stderr=git.stderr)
    process.exit(await git.wait())


async def main() -> None:
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_host_keys=[sys.argv[2]],
        authorized_client_keys=sys.argv[3],
        process_factory=handle,
        encoding=None,
        compression_algs=None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


asyncio.run(main())
