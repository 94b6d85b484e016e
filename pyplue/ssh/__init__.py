"""A Git server over SSH inside your Python process: clone, fetch and push with public keys.

    from pyplue.ssh import GitServer, Principal

    alice = Principal(keys=["ssh-ed25519 AAAA..."], rules=["write alice/*", "read *"])
    with GitServer("/srv/git", port=2222, keys={"alice": alice}):
        ...  # git clone ssh://git@127.0.0.1:2222/alice/repo.git

Everything that is not allowed explicitly is refused. `pyplue.ssh.store` keeps users, keys and
repositories in a database; `python -m pyplue.ssh` manages them from the command line.
"""

from pyplue.ssh.errors import (
    SshConfigError,
    SshDatabaseError,
    SshError,
    SshNameError,
    SshRefusedError,
)
from pyplue.ssh.pushes import Push, Update
from pyplue.ssh.server import GitServer, Limits, Principal, libssh_version, version

__all__ = [
    "GitServer",
    "Limits",
    "Principal",
    "Push",
    "SshConfigError",
    "SshDatabaseError",
    "SshError",
    "SshNameError",
    "SshRefusedError",
    "Update",
    "libssh_version",
    "version",
]
