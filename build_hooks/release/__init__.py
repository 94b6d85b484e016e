"""How a release is made: `./dev wheels` runs this package (`python -m build_hooks.release`).

`sources` fetches the pinned sources of libssh and libcrypto, `libcrypto` compiles the latter with
zig cc for one target, `wheels` makes every file of a release from them, `archives` the archive for
people without Python, `checks` looks at what came out. Nothing here is installed.
"""


class ReleaseError(Exception):
    """A release cannot be made. The text is for who makes it: what is wrong, and the cure."""
