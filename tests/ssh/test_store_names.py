"""What may be a name: everything else is refused before anything happens."""

from __future__ import annotations

import pytest

from pyplue.ssh import SshNameError
from pyplue.ssh.names import check_branch, check_repository, check_user


@pytest.mark.parametrize("name", ["a", "0", "alice", "a-b-c", "x1", "a" * 39, "1-2"])
def test_names_of_users(name: str):
    assert check_user(name) == name


BAD_USERS = [
    "", " ", "Alice", "ALICE", "a b", "a_b", "a.b", ".", "..", "-a", "a-", "a--b", "--help",
    "a" * 40, "a/b", "/a", "a/", "../a", "a\\b", "a\nb", "a\n", "\na", "a\0b", "a\x1b[2J",
    "ålice", "alic\u0435", "\uff41lice", "a\u202eb", "a\u200bb", "a\u0301", "²", "①",
    "\u0661", "ß", "a@b", "a:b", "*", "?", "$(id)", "`id`", "a;b", "'", '"', "%2e%2e",
    "~root", "a.git",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_USERS)
def test_what_no_user_may_be_called(name: str):
    with pytest.raises(SshNameError, match="cannot be a user: use"):
        check_user(name)


@pytest.mark.parametrize(
    "name", ["a/b", "alice/Project", "a/x.y", "a/_x", "a/x-y_z.9", "a/" + "x" * 100, "a/0"]
)
def test_names_of_repositories(name: str):
    assert str(check_repository(name)) == name


BAD_REPOSITORIES = [
    "", "a", "a/", "/b", "a/b/c", "a//b", "/a/b", "a/b/", "a/.", "a/..", "../a/b", "a/../b", "a/.b",
    "a/-b", "a/--upload-pack=x", "a/b..c", "a/b.", "a/b.git", "a/b.GIT", "a/.git", "a/b c",
    "a/" + "x" * 101, "a/b\n", "a/b\0", "a/\u202eb", "a/bé", "a/\uff42", "a/b\\c", "a/$(id)",
    "a/b*", "A/b", "a b/c", "-a/b", "ssh://a/b", "a:b/c",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_REPOSITORIES)
def test_what_no_repository_may_be_called(name: str):
    with pytest.raises(SshNameError):
        check_repository(name)


@pytest.mark.parametrize("name", ["main", "trunk", "release/1.0", "a-b_c", "v1.2"])
def test_names_of_default_branches(name: str):
    assert check_branch(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "-x", "--template=/tmp", "a..b", "a/", "/a", "a//b", ".a", "a/.b", "a.lock", "a.lock/b",
     "a.", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a\n", "@", "@{", "é", "x" * 201],
)  # fmt: skip
def test_what_no_default_branch_may_be_called(name: str):
    with pytest.raises(SshNameError, match="cannot be a branch"):
        check_branch(name)


@pytest.mark.parametrize("name", [*BAD_USERS, *BAD_REPOSITORIES])
def test_a_refusal_is_one_printable_line(name: str):
    check = check_user if name in BAD_USERS else check_repository
    with pytest.raises(SshNameError) as caught:
        check(name)
    assert str(caught.value).isprintable()
