"""Identity comes only from the key whose signature was verified, whoever decides about it.

A server that remembered the key which a client merely offered made anyone an administrator
(soft-serve GHSA-pchf-49fh-w34r; the same trap in Go's x/crypto/ssh, CVE-2024-45337).
"""

from __future__ import annotations

import paramiko
import pytest

from .forge import BUNDLED, Server, Sshd, serve
from .raw_client import (
    CHANNEL_OPEN,
    OPEN_CONFIRMATION,
    USERAUTH_FAILURE,
    USERAUTH_PK_OK,
    USERAUTH_SUCCESS,
    Gone,
    RawClient,
    SecurityKey,
    load,
    string,
    u32,
)

ALICES = "git-upload-pack 'alice/project'"
BOBS = "git-upload-pack 'bob/private'"


@pytest.fixture
def raw(any_server: Server | Sshd):
    with RawClient(any_server) as client:
        client.user = any_server.user
        yield client


@pytest.fixture(scope="module")
def people(forge) -> dict[str, paramiko.PKey]:
    return {name: load(forge.keys[name]) for name in ("alice", "bob", "mallory")}


def answer(client: RawClient) -> int:
    return client.expect(USERAUTH_PK_OK, USERAUTH_SUCCESS, USERAUTH_FAILURE)[0]


def refused(client: RawClient) -> bool:
    """A failure, or the end of the connection."""
    try:
        return answer(client) == USERAUTH_FAILURE
    except Gone:
        return True


def test_an_offered_key_alone_lets_nobody_in(raw, people):
    raw.request_auth()
    raw.offer(people["alice"].asbytes(), user=raw.user)
    assert answer(raw) == USERAUTH_PK_OK
    raw.send(CHANNEL_OPEN, string("session"), u32(0), u32(1 << 20), u32(32768))
    raw.never(OPEN_CONFIRMATION)


def test_the_victims_key_with_ones_own_signature_is_refused(raw, people):
    raw.request_auth()
    raw.offer(people["alice"].asbytes(), user=raw.user)
    assert answer(raw) == USERAUTH_PK_OK
    raw.sign(people["alice"].asbytes(), people["mallory"], user=raw.user)
    assert refused(raw)


def test_after_the_victims_key_was_offered_an_unknown_key_stays_unknown(raw, people):
    raw.request_auth()
    raw.offer(people["alice"].asbytes(), user=raw.user)
    assert answer(raw) == USERAUTH_PK_OK
    raw.sign(people["mallory"].asbytes(), people["mallory"], user=raw.user)
    assert refused(raw)


@pytest.mark.parametrize("order", ["before", "after a refusal", "all at once"])
def test_after_the_victims_key_was_offered_one_is_still_oneself(raw, people, order):
    raw.request_auth()
    raw.offer(people["alice"].asbytes(), user=raw.user)
    if order == "after a refusal":
        raw.sign(people["alice"].asbytes(), people["bob"], user=raw.user)
    raw.sign(people["bob"].asbytes(), people["bob"], user=raw.user)
    answers = [answer(raw)]
    while answers[-1] != USERAUTH_SUCCESS:
        answers.append(answer(raw))
    assert raw.run(ALICES)[0] not in (0, None)
    status, output = raw.run(BOBS)
    assert status == 0
    assert b"refs/heads/main" in output


def test_a_key_offered_after_the_login_changes_nothing(raw, people):
    raw.request_auth()
    raw.sign(people["bob"].asbytes(), people["bob"], user=raw.user)
    assert answer(raw) == USERAUTH_SUCCESS
    try:
        raw.sign(people["alice"].asbytes(), people["alice"], user=raw.user)
        raw.offer(people["alice"].asbytes(), user=raw.user)
        status, output = raw.run(ALICES)
    except Gone:  # ending the connection is an answer too
        return
    assert status != 0
    assert b"refs" not in output


def test_a_signature_for_another_session_is_refused(raw, any_server, people):
    raw.request_auth()
    with RawClient(any_server) as other:
        session_id = other.transport.session_id
    raw.sign(people["alice"].asbytes(), people["alice"], user=raw.user, session_id=session_id)
    assert refused(raw)


def test_a_signature_for_another_user_is_refused(raw, people):
    raw.request_auth()
    key = people["alice"]
    raw.sign(key.asbytes(), key, user="root2")
    assert refused(raw)


def test_a_signature_for_another_service_lets_nobody_in(raw, people):
    raw.request_auth()
    key = people["alice"]
    raw.sign(key.asbytes(), key, user=raw.user, service="ssh-userauth")
    assert refused(raw)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("flags", [1, 5], ids=["present", "present and verified"])
def test_a_security_key_logs_in(forge, kind, flags):
    key = SecurityKey(kind, flags)
    people = forge.people()
    people["alice"]["keys"].append(key.line)
    with serve(forge, people=people) as server, RawClient(server) as client:
        assert key.log_in(client) == USERAUTH_SUCCESS
        assert client.run(ALICES)[0] == 0


def test_without_their_names_in_the_list_security_keys_are_refused(forge):
    key = SecurityKey()
    people = forge.people()
    people["alice"]["keys"].append(key.line)
    names = "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512"
    with serve(forge, people=people, user_key_algorithms=names) as server:
        with RawClient(server) as client:
            assert key.log_in(client) == USERAUTH_FAILURE
        with RawClient(server) as client:
            client.log_in(forge.keys["alice"])
        server.wait_for("authenticated", principal="alice")
        assert server.counters()["authenticated_total"] == 1


@pytest.mark.xfail(not BUNDLED, strict=True, reason="a shared libssh shows nobody the flags")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
@pytest.mark.parametrize("flags", [0, 4], ids=["absent", "verified but absent"])
def test_a_security_key_that_nobody_touched_is_refused(forge, kind, flags):
    """Its signature says so: the flag for a present user is missing."""
    key = SecurityKey(kind, flags)
    people = forge.people()
    people["alice"]["keys"].append(key.line)
    with serve(forge, people=people) as server, RawClient(server) as client:
        assert key.log_in(client) == USERAUTH_FAILURE
        server.wait_for("auth_failed", reason="not_touched")
        # The same connection, with a wrong signature by an ordinary key: that is another reason.
        client.sign(load(forge.keys["alice"]).asbytes(), load(forge.keys["mallory"]))
        assert answer(client) == USERAUTH_FAILURE
        server.wait_for("auth_failed", reason="bad_signature")
