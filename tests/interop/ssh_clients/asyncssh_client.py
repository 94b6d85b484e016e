"""asyncssh in the place of `ssh` for git: asyncssh_client.py KEY KNOWN_HOSTS [ssh options]."""

from __future__ import annotations

import asyncio
import os
import sys

import asyncssh
from ssh_arguments import parse


async def main() -> int:
    arguments = parse(sys.argv[1:])
    protocol = os.environ.get("GIT_PROTOCOL")
    async with asyncssh.connect(
        arguments.host,
        arguments.port,
        username=arguments.user,
        client_keys=[arguments.key],
        known_hosts=arguments.known_hosts,
        agent_path=None,
        config=None,
    ) as connection:
        process = await connection.create_process(
            arguments.command,
            encoding=None,
            env={"GIT_PROTOCOL": protocol} if protocol else {},
            stdin=sys.stdin.buffer,
            stdout=sys.stdout.buffer,
            stderr=sys.stderr.buffer,
        )
        done = await process.wait()
        return done.exit_status if done.exit_status is not None else 255


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
