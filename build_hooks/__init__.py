"""How pip builds pyplue: setuptools, with `zig build` in the place of a C compiler.

`backend` is the PEP 517 entry, `commands` the setuptools commands, `zig` finds and runs the
compiler, `platforms` turns Zig target triples into wheel tags. Nothing here is installed.
"""
