"""An SSH client that says whatever a test wants, in any order. The key exchange is paramiko's."""

from __future__ import annotations

import base64
import hashlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from paramiko.message import Message

from .forge import Key, Server

DISCONNECT, UNIMPLEMENTED, SERVICE_REQUEST, SERVICE_ACCEPT = 1, 3, 5, 6
USERAUTH_REQUEST, USERAUTH_FAILURE, USERAUTH_SUCCESS, USERAUTH_PK_OK = 50, 51, 52, 60
GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
CHANNEL_OPEN, OPEN_CONFIRMATION, OPEN_FAILURE, WINDOW_ADJUST = 90, 91, 92, 93
CHANNEL_DATA, EXTENDED_DATA, CHANNEL_EOF, CHANNEL_CLOSE = 94, 95, 96, 97
CHANNEL_REQUEST, CHANNEL_SUCCESS, CHANNEL_FAILURE = 98, 99, 100

ANSWER_TIMEOUT_S = 20.0


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def string(value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return u32(len(data)) + data


class Gone(Exception):
    """The server ended the connection."""


class RawClient:
    """Connected and with keys exchanged; everything after that is up to the test.

    `prelude` is sent ahead of everything, as by a load balancer."""

    def __init__(self, server: Server, prelude: bytes = b"") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        self.socket.sendall(prelude)
        self.transport = paramiko.Transport(self.socket)
        self._received: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self._closed = threading.Event()
        table = self.transport._handler_table
        for number in (UNIMPLEMENTED, SERVICE_REQUEST, SERVICE_ACCEPT, *range(50, 128)):
            table[number] = partial(self._record, number)
        self.transport.start_client(timeout=30)

    def _record(self, number: int, message: Message) -> None:
        self._received.put((number, message.asbytes()))

    def send(self, number: int, *parts: bytes) -> None:
        message = Message(bytes([number]) + b"".join(parts))
        message.packet.seek(0, 2)
        try:
            self.transport._send_message(message)
        except (OSError, EOFError) as error:
            raise Gone from error

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """What is sent inside leaves at its end, in one piece."""
        packets: list[bytes] = []
        packetizer = self.transport.packetizer
        packetizer.write_all = packets.append
        yield
        del packetizer.write_all
        with self.socket.dup() as own:
            own.settimeout(ANSWER_TIMEOUT_S)
            try:
                own.sendall(b"".join(packets))
            except ConnectionError as error:
                raise Gone from error

    def stop_reading(self) -> None:
        """One more message is taken from the socket, then no more."""

        def read_message() -> tuple[int, Message]:
            self._closed.wait()
            raise EOFError

        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.transport.packetizer.read_message = read_message

    def count(self, number: int) -> int:
        """Messages of this number until the server has ended the connection."""
        self.wait_gone()
        return sum(received == number for received, _ in self._received.queue)

    def expect(self, *numbers: int, within_s: float = ANSWER_TIMEOUT_S) -> tuple[int, bytes]:
        """The next message of one of these numbers; others are skipped. Gone when none comes."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            try:
                number, payload = self._received.get(timeout=0.05)
            except queue.Empty:
                if not self.transport.is_active() and self._received.empty():
                    raise Gone from None
                continue
            if number in numbers:
                return number, payload
        raise AssertionError(f"no answer {numbers} within {within_s} s")

    def never(self, *numbers: int, within_s: float = 1.0) -> None:
        """Fails when one of these messages comes; the end of the connection is fine."""
        try:
            number, payload = self.expect(*numbers, within_s=within_s)
        except (Gone, AssertionError):
            return
        raise AssertionError(f"the server answered {number}: {payload!r}")

    def wait_gone(self) -> None:
        """Returns when the server has ended the connection; fails when it does not."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while self.transport.is_active():
            assert time.monotonic() < deadline, "the server keeps the connection"
            time.sleep(0.02)

    def close(self) -> None:
        self._closed.set()
        self.transport.close()
        self.socket.close()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- authentication ---------------------------------------------------------------------

    def request_auth(self) -> None:
        self.send(SERVICE_REQUEST, string("ssh-userauth"))
        self.expect(SERVICE_ACCEPT)

    def offer(self, blob: bytes, algorithm: str = "ssh-ed25519", user: str = "git") -> None:
        """Asks whether a key would do, without a signature."""
        self.send(USERAUTH_REQUEST, *_publickey(user, False, algorithm, blob))

    def sign(
        self,
        blob: bytes,
        key: paramiko.PKey,
        *,
        user: str = "git",
        session_id: bytes | None = None,
        service: str = "ssh-connection",
    ) -> None:
        """Claims `blob`, and signs with `key`, which need not belong together."""
        session = session_id if session_id is not None else self.transport.session_id
        body = b"".join(_publickey(user, True, "ssh-ed25519", blob, service))
        signed = key.sign_ssh_data(string(session) + bytes([USERAUTH_REQUEST]) + body)
        self.send(USERAUTH_REQUEST, body, string(signed.asbytes()))

    def log_in(self, key: Key) -> None:
        self.request_auth()
        private = load(key)
        self.sign(private.asbytes(), private)
        assert self.expect(USERAUTH_SUCCESS, USERAUTH_FAILURE)[0] == USERAUTH_SUCCESS

    # ---- channels ---------------------------------------------------------------------------

    def open(
        self, kind: str = "session", number: int = 0, window: int = 1 << 20, packet: int = 32768
    ) -> int | None:
        """Opens a channel; the server's number of it, or None when it is refused."""
        self.send(CHANNEL_OPEN, string(kind), u32(number), u32(window), u32(packet))
        answer, payload = self.expect(OPEN_CONFIRMATION, OPEN_FAILURE)
        return struct.unpack(">II", payload[:8])[1] if answer == OPEN_CONFIRMATION else None

    def request(self, channel: int, kind: str, *parts: bytes, reply: bool = True) -> bool | None:
        """Sends a channel request; whether it was granted."""
        self.send(CHANNEL_REQUEST, u32(channel), string(kind), bytes([reply]), *parts)
        if not reply:
            return None
        return self.expect(CHANNEL_SUCCESS, CHANNEL_FAILURE)[0] == CHANNEL_SUCCESS

    def run(self, command: str) -> tuple[int | None, bytes]:
        """Runs a command on a channel of its own; exit status and output."""
        channel = self.open()
        if channel is None or not self.request(channel, "exec", string(command)):
            return None, b""
        self.send(CHANNEL_DATA, u32(channel), string(b"0000"))
        self.send(CHANNEL_EOF, u32(channel))
        status, output = None, b""
        while True:
            number, payload = self.expect(CHANNEL_DATA, CHANNEL_REQUEST, CHANNEL_CLOSE)
            if number == CHANNEL_DATA:
                output += payload[8:]
            elif number == CHANNEL_REQUEST and payload[8:].startswith(b"exit-status"):
                status = struct.unpack(">I", payload[-4:])[0]
            elif number == CHANNEL_CLOSE:
                return status, output


def _publickey(
    user: str, signed: bool, algorithm: str, blob: bytes, service: str = "ssh-connection"
) -> list[bytes]:
    words = [string(user), string(service), string("publickey"), bytes([signed])]
    return [*words, string(algorithm), string(blob)]


def load(key: Key) -> paramiko.PKey:
    return paramiko.Ed25519Key.from_private_key_file(str(key.private))


def forge_key(path: Path, public: Key, secret: Key) -> Path:
    """A private key file that shows one key and signs with another (OpenSSH's PROTOCOL.key)."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    seed = load_ssh_private_key(secret.private.read_bytes(), None).private_bytes_raw()
    blob = base64.b64decode(public.line.split()[1])
    point = blob[-32:]
    inner = u32(7) * 2 + string("ssh-ed25519") + string(point) + string(seed + point) + string("")
    inner += bytes(range(1, 1 + -len(inner) % 8))
    head = b"openssh-key-v1\0" + string("none") * 2 + string("") + u32(1)
    text = base64.encodebytes(head + string(blob) + string(inner)).decode()
    frame = "-----{} OPENSSH PRIVATE KEY-----\n"
    path.write_text(frame.format("BEGIN") + text + frame.format("END"))
    path.chmod(0o600)
    return path


class SecurityKey:
    """A FIDO authenticator in software: what a hardware key signs, with the key in memory.

    PROTOCOL.u2f of OpenSSH: the signature is over the hash of the application, a byte of flags, a
    counter and the hash of what SSH wants signed.
    """

    def __init__(self, kind: str = "ed25519", flags: int = 1) -> None:
        self._application, self._flags = "ssh:", flags
        self.ecdsa = kind == "ecdsa"
        if self.ecdsa:
            self._private = ec.generate_private_key(ec.SECP256R1())
            self.algorithm = "sk-ecdsa-sha2-nistp256@openssh.com"
            form = Encoding.X962, PublicFormat.UncompressedPoint
            public = string("nistp256") + string(self._private.public_key().public_bytes(*form))
        else:
            self._private = Ed25519PrivateKey.generate()
            self.algorithm = "sk-ssh-ed25519@openssh.com"
            public = string(self._private.public_key().public_bytes_raw())
        self.blob = string(self.algorithm) + public + string(self._application)
        self.line = f"{self.algorithm} {base64.b64encode(self.blob).decode()}"

    def signature(self, data: bytes) -> bytes:
        counter = bytes([self._flags]) + u32(7)
        application = hashlib.sha256(self._application.encode()).digest()
        covered = application + counter + hashlib.sha256(data).digest()
        if self.ecdsa:
            numbers = decode_dss_signature(self._private.sign(covered, ec.ECDSA(SHA256())))
            signed = b"".join(string(n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
        else:
            signed = self._private.sign(covered)
        return string(self.algorithm) + string(signed) + counter

    def log_in(self, client: RawClient) -> int:
        """Offers the key, then signs with it, as ssh does."""
        client.request_auth()
        client.offer(self.blob, self.algorithm)
        client.expect(USERAUTH_PK_OK)
        body = b"".join(_publickey("git", True, self.algorithm, self.blob))
        data = string(client.transport.session_id) + bytes([USERAUTH_REQUEST]) + body
        client.send(USERAUTH_REQUEST, body, string(self.signature(data)))
        return client.expect(USERAUTH_SUCCESS, USERAUTH_FAILURE)[0]
