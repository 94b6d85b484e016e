"""Users, keys, repositories and permissions in SQLite or PostgreSQL. Needs pyplue[ssh].

    from pyplue.ssh import GitServer
    from pyplue.ssh.store import Store

    store = Store("forge.sqlite", repositories="/srv/git")
    store.users.add("alice")
    store.keys.add("alice", "ssh-ed25519 AAAA...")
    store.repositories.create("alice/project")
    with GitServer(store.repositories.root, store=store):
        ...  # git clone ssh://git@127.0.0.1:2222/alice/project

A running server follows the database, whoever changes it: a removed key or a lowered permission
counts within a second, for new connections and for the next command of running ones.
"""

try:
    import sqlalchemy  # noqa: F401
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "SQLAlchemy is not installed: pip install 'pyplue[ssh]'", name="SQLAlchemy"
    ) from None

from pyplue.ssh.store.access import Grant
from pyplue.ssh.store.keys import Key
from pyplue.ssh.store.repositories import Repository
from pyplue.ssh.store.store import MAX_STALE_S, POLL_S, Store
from pyplue.ssh.store.users import User
from pyplue.ssh.store.watch import StoreStatus

__all__ = [
    "MAX_STALE_S",
    "POLL_S",
    "Grant",
    "Key",
    "Repository",
    "Store",
    "StoreStatus",
    "User",
]
