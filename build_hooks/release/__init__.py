"""How a release is made: `./dev wheels` runs this package (`python -m build_hooks.release`).

`sources` fetches the pinned sources of libssh and libcrypto, `libcrypto` compiles the latter with
zig cc for one target, `wheels` makes every file of a release from them, `archives` the archive for
people without Python, `checks` looks at what came out, `kept` is what stays between runs. Nothing
here is installed.
"""

import os


class ReleaseError(Exception):
    """A release cannot be made. The text is for who makes it: what is wrong, and the cure."""


# What a compiler or OpenSSL's Configure reads besides (CFLAGS, CPATH, PERL, ...) would get into the
# bytes of a release, and into what is kept for the next one.
_KEPT = ("PATH", "HOME", "TMPDIR", "USER", "PY_ZIG", "XDG_CACHE_HOME", "ZIG_GLOBAL_CACHE_DIR")


def environment(**changes: str) -> dict[str, str]:
    """The environment that the programs of a release run in: the same for everybody."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", **changes}
