"""Looks whether a server can work, and how safe it is. The command is in pyplue/ssh/admin."""
