"""paramiko in the place of `ssh` for git: paramiko_client.py KEY KNOWN_HOSTS [ssh options]."""

from __future__ import annotations

import os
import sys
import threading

import paramiko
from ssh_arguments import parse


def main() -> int:
    arguments = parse(sys.argv[1:])
    client = paramiko.SSHClient()
    client.load_host_keys(arguments.known_hosts)
    client.connect(
        arguments.host,
        arguments.port,
        arguments.user,
        key_filename=arguments.key,
        allow_agent=False,
        look_for_keys=False,
    )
    channel = client.get_transport().open_session()
    if protocol := os.environ.get("GIT_PROTOCOL"):
        channel.update_environment({"GIT_PROTOCOL": protocol})
    channel.exec_command(arguments.command)

    def feed() -> None:
        while data := os.read(0, 65536):
            channel.sendall(data)
        channel.shutdown_write()

    def errors() -> None:
        while data := channel.recv_stderr(65536):
            os.write(2, data)

    threading.Thread(target=feed, daemon=True).start()
    reader = threading.Thread(target=errors)
    reader.start()
    while data := channel.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    reader.join()
    status = channel.recv_exit_status()
    client.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
