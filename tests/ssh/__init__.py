"""Tests of the Git server: real git and clients that nobody here wrote, against a real server."""
