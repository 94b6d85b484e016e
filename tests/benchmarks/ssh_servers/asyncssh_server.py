"""A Git server on asyncssh: asyncssh_server.py ROOT HOST_KEY KEYS."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from contextlib import suppress
from typing import Any

import asyncssh


async def copy(source: Any, target: Any) -> None:
    while data := await source.read(65536):
        target.write(data)
        await target.drain()


async def feed(source: Any, target: asyncio.StreamWriter) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # git has read all that it wanted
        await copy(source, target)
    target.close()


async def handle(process: asyncssh.SSHServerProcess) -> None:
    service, path = shlex.split(process.command)
    directory = os.path.join(sys.argv[1], path.strip("/").removesuffix(".git") + ".git")
    pipe = asyncio.subprocess.PIPE
    git = await asyncio.create_subprocess_exec(
        "git", service.removeprefix("git-"), directory, stdin=pipe, stdout=pipe, stderr=pipe
    )
    feeding = asyncio.create_task(feed(process.stdin, git.stdin))
    await asyncio.gather(copy(git.stdout, process.stdout), copy(git.stderr, process.stderr))
    status = await git.wait()
    feeding.cancel()
    process.exit(status)


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
