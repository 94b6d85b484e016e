"""What OpenSSH's sshd runs in the place of the client's command: the same rules as the server's.

Only to check the tests themselves against a server that everybody trusts, see `Sshd` in forge.py.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from server_process import allowed

REFUSAL = "plue: repository not found, or you may not use it like that"


def main() -> None:
    root, rules = Path(sys.argv[1]), json.loads(sys.argv[2])
    command = os.environ.get("SSH_ORIGINAL_COMMAND")
    if command is None:
        print("Hi! You've successfully authenticated, but there is no shell access.")
        sys.exit(1)
    try:
        service, path = shlex.split(command)
    except ValueError:
        sys.exit(REFUSAL)
    name = path.strip("/").removesuffix(".git")
    inside = ".." not in name.split("/") and not name.startswith("-")
    if service not in ("git-upload-pack", "git-receive-pack") or not inside:
        sys.exit(REFUSAL)
    directory = next((d for d in (root / f"{name}.git", root / name) if d.is_dir()), None)
    write = service == "git-receive-pack"
    if directory is None or directory.resolve() != directory or not allowed(rules, name, write):
        sys.exit(REFUSAL)
    os.execvp("git", ["git", service.removeprefix("git-"), str(directory)])


if __name__ == "__main__":
    main()
