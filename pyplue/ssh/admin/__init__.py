"""The commands of `python -m pyplue.ssh`: one module each, see `COMMANDS` in main.py."""
