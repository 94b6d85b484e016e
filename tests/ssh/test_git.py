"""What people do with git every day, with the real git on both sides."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from .forge import Client, Forge, Server, Sshd, commit, short_path

# Megabytes of the one large file; a 200 MB repository is in test_transfers.py.
LARGE_FILE_MB = int(os.environ.get("PLUE_SSH_LARGE_FILE_MB", "8"))


@pytest.fixture
def alice(any_server: Server | Sshd, work: Path) -> Client:
    return Client(any_server, "alice", directory=work)


def unique(work: Path) -> str:
    """A repository name that no other test uses."""
    return f"alice/{work.name}-{os.urandom(3).hex()}"


@pytest.fixture
def name(forge: Forge, work: Path) -> str:
    """A fresh repository with three commits and a tag."""
    new = unique(work)
    forge.repository(new)
    return new


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_clone_push_and_fetch_in_every_protocol_version(alice, forge, name, protocol):
    first = alice.clone(f"{name}.git", "first", protocol=protocol)
    second = alice.clone(name, "second", protocol=protocol)
    pushed = commit(forge, first, "new file")
    alice.git("push", "-q", "origin", "main", cwd=first, protocol=protocol)
    alice.git("fetch", "-q", cwd=second, protocol=protocol)
    assert forge.git("rev-parse", "origin/main", cwd=second) == pushed
    assert forge.git("rev-parse", "main", cwd=forge.repositories / f"{name}.git") == pushed
    forge.objects(second)


def test_the_scp_like_address_works_too(alice, forge, name, work):
    alice.ssh_command += ["-p", str(alice.server.port)]
    alice.git("clone", "-q", f"{alice.user}@127.0.0.1:{name}.git", "scp")
    assert forge.objects(work / "scp")


def test_the_server_sees_the_protocol_version(alice, name):
    packets = alice.environment() | {"GIT_TRACE_PACKET": "1"}
    alice.environment = lambda protocol: packets
    assert "version 2" in alice.try_git("ls-remote", alice.url(name)).stderr


def test_a_shallow_clone_is_deepened(alice, forge, name):
    clone = alice.clone(name, "shallow", "--depth=1")
    assert forge.git("rev-list", "--count", "HEAD", cwd=clone) == "1"
    alice.git("fetch", "-q", "--deepen=1", cwd=clone)
    assert forge.git("rev-list", "--count", "HEAD", cwd=clone) == "2"
    alice.git("fetch", "-q", "--unshallow", cwd=clone)
    assert forge.git("rev-list", "--count", "HEAD", cwd=clone) == "3"


def test_a_shallow_clone_pushes(alice, forge, name):
    clone = alice.clone(name, "shallow", "--depth=1")
    pushed = commit(forge, clone, "from a shallow clone")
    alice.git("push", "-q", "origin", "HEAD:main", cwd=clone)
    assert forge.git("rev-parse", "main", cwd=forge.repositories / f"{name}.git") == pushed


def test_a_partial_clone_fetches_blobs_when_they_are_read(alice, forge, name):
    forge.git("config", "uploadpack.allowFilter", "true", cwd=forge.repositories / f"{name}.git")
    clone = alice.clone(name, "partial", "--filter=blob:none", "--no-checkout")
    missing = forge.git("rev-list", "--objects", "--all", "--missing=print", cwd=clone)
    assert "?" in missing
    assert alice.git("show", "HEAD:README", cwd=clone)


def test_one_branch_only(alice, forge, name):
    clone = alice.clone(name, "first")
    alice.git("push", "-q", "origin", "main:refs/heads/side", cwd=clone)
    side = alice.clone(name, "side", "--single-branch", "--branch=side")
    assert forge.git("branch", "-r", cwd=side).split() == ["origin/side"]


def test_a_push_into_an_empty_repository(alice, forge, work):
    new = unique(work)
    forge.repository(new, empty=True)
    clone = alice.clone(new, "empty")
    pushed = commit(forge, clone, "first")
    alice.git("push", "-q", "-u", "origin", "main", cwd=clone)
    again = alice.clone(new, "again")
    assert forge.git("rev-parse", "HEAD", cwd=again) == pushed


def test_a_repository_with_a_work_tree(alice, forge, work):
    new = unique(work)
    forge.repository(new, bare=False)
    clone = alice.clone(new, "clone")
    alice.git("push", "-q", "origin", "main:refs/heads/topic", cwd=clone)
    assert "refs/heads/topic" in forge.objects(forge.repositories / new)


def test_a_push_that_is_no_fast_forward_is_rejected_until_forced(alice, forge, name):
    clone = alice.clone(name, "clone")
    forge.git("reset", "-q", "--hard", "HEAD~1", cwd=clone)
    rewritten = commit(forge, clone, "another history")
    refused = alice.try_git("push", "origin", "main", cwd=clone)
    assert refused.returncode != 0
    assert "non-fast-forward" in refused.stderr
    alice.git("push", "-q", "--force", "origin", "main", cwd=clone)
    assert forge.git("rev-parse", "main", cwd=forge.repositories / f"{name}.git") == rewritten


def test_force_with_lease_sees_what_others_have_pushed(alice, forge, name):
    mine, theirs = alice.clone(name, "mine"), alice.clone(name, "theirs")
    commit(forge, theirs, "theirs")
    alice.git("push", "-q", "origin", "main", cwd=theirs)
    commit(forge, mine, "mine")
    refused = alice.try_git("push", "--force-with-lease", "origin", "main", cwd=mine)
    assert "stale info" in refused.stderr


def test_tags_branches_and_their_deletion(alice, forge, name):
    clone = alice.clone(name, "clone")
    forge.git("tag", "-a", "-m", "annotated", "v2.0", cwd=clone)
    forge.git("tag", "light", cwd=clone)
    alice.git("push", "-q", "origin", "--tags", cwd=clone)
    alice.git("push", "-q", "origin", "main:refs/heads/feature/x", cwd=clone)
    listed = alice.git("ls-remote", alice.url(name))
    for reference in ("refs/tags/v2.0^{}", "refs/tags/light", "refs/heads/feature/x"):
        assert reference in listed
    alice.git("push", "-q", "origin", ":refs/tags/light", ":feature/x", cwd=clone)
    listed = alice.git("ls-remote", alice.url(name))
    assert "refs/tags/light" not in listed
    assert "feature/x" not in listed


def test_an_atomic_push_changes_all_or_nothing(alice, forge, name):
    clone = alice.clone(name, "clone")
    forge.git("checkout", "-q", "-b", "topic", cwd=clone)
    commit(forge, clone, "topic")
    forge.git("checkout", "-q", "main", cwd=clone)
    forge.git("reset", "-q", "--hard", "HEAD~1", cwd=clone)
    refused = alice.try_git("push", "--atomic", "origin", "main", "topic", cwd=clone)
    assert refused.returncode != 0
    assert "topic" not in alice.git("ls-remote", alice.url(name))


def test_submodules_are_cloned_along(alice, forge, name, work):
    inner = unique(work)
    forge.repository(inner)
    outer = alice.clone(name, "outer")
    alice.git("submodule", "--quiet", "add", alice.url(inner), "inner", cwd=outer)
    forge.git("commit", "-q", "-m", "Add a submodule", cwd=outer)
    alice.git("push", "-q", "origin", "main", cwd=outer)
    clone = alice.clone(name, "clone", "--recurse-submodules")
    assert (clone / "inner" / "README").exists()


def test_a_large_file_arrives_whole(alice, forge, name):
    clone = alice.clone(name, "clone")
    content = os.urandom(LARGE_FILE_MB << 20)
    commit(forge, clone, "large.bin", content)
    alice.git("push", "-q", "origin", "main", cwd=clone)
    again = alice.clone(name, "again")
    arrived = hashlib.sha256((again / "large.bin").read_bytes()).digest()
    assert arrived == hashlib.sha256(content).digest()


@pytest.mark.parametrize(
    "odd", ["with space", "it's", "ünïcode", 'a"b', "a;b", "$(id)", "a&b", "!"]
)
def test_names_with_quotes_spaces_and_signs(alice, forge, work, odd):
    new = f"{unique(work)}/{odd}"
    forge.repository(new)
    alice.ssh_command += ["-p", str(alice.server.port)]
    alice.git("clone", "-q", f"{alice.user}@127.0.0.1:{new}.git", "clone")
    pushed = commit(forge, work / "clone", "file")
    alice.git("push", "-q", "origin", "main", cwd=work / "clone")
    assert forge.git("rev-parse", "main", cwd=forge.repositories / f"{new}.git") == pushed


def test_a_hook_talks_to_the_client_and_may_refuse(alice, forge, name):
    hook = forge.repositories / f"{name}.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho 'policy says no' >&2\nexit 1\n")
    hook.chmod(0o755)
    clone = alice.clone(name, "clone")
    commit(forge, clone, "file")
    refused = alice.try_git("push", "origin", "main", cwd=clone)
    assert refused.returncode == 1
    assert "remote: policy says no" in refused.stderr
    assert "pre-receive hook declined" in refused.stderr


def test_a_read_only_repository_is_cloned_but_not_pushed_to(alice, forge):
    clone = alice.clone("public/library", "library")
    before = forge.objects(forge.repositories / "public/library.git")
    commit(forge, clone, "unwanted")
    refused = alice.try_git("push", "origin", "main", cwd=clone)
    assert refused.returncode == 128
    assert "Could not read from remote repository" in refused.stderr
    assert forge.objects(forge.repositories / "public/library.git") == before


@pytest.mark.parametrize("key", ["alice", "alice-ecdsa", "alice-rsa"])
def test_every_kind_of_key_logs_in(any_server, key):
    client = Client(any_server, key)
    assert "refs/heads/main" in client.git("ls-remote", client.url("alice/project"))


def test_the_second_of_two_keys_is_right(any_server, forge):
    second = ["-i", str(forge.keys["alice"].private)]
    client = Client(any_server, "mallory", *second)
    assert "refs/heads/main" in client.git("ls-remote", client.url("alice/project"))


def test_several_gits_share_one_connection(any_server, forge, work):
    socket = f"ControlPath={short_path()}"
    options = ["-o", "ControlMaster=auto", "-o", socket, "-o", "ControlPersist=20"]
    client = Client(any_server, "alice", *options, directory=work)
    try:
        for number in range(3):
            client.clone("alice/project", f"clone{number}")
    finally:
        client.ssh(options=("-O", "exit"))
