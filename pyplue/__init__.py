"""Native building blocks for a self-hosted code forge, written in Zig.

`pyplue.jwt` signs and verifies HS256 JSON Web Tokens, `pyplue.ratelimit` limits requests,
`pyplue.ssh` serves Git over SSH. `pyplue.ffi` gives the raw functions of each library.
`python -m pyplue` says what is installed.
"""

__version__ = "0.1.0"
