"""The library in somebody's process: what it opens there, and that it disturbs no other OpenSSL."""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pyplue import ffi

from .forge import BUNDLED, At, Client, Forge


def opened_by(trace: str, program: str) -> set[str]:
    """Every file that `program` has tried to open or to look at; not what its gits have."""
    others = {
        line.split()[0]
        for line in trace.splitlines()
        if (run := re.search(r" execve\(\"([^\"]*)\"", line)) and run[1] != program
    }
    calls = r"(\d+) +(?:open|openat|openat2|access|faccessat2?|stat|newfstatat|statx|readlink)\("
    return {
        found[2]
        for line in trace.splitlines()
        if (found := re.match(calls + r'(?:\w+, )?"([^"]+)"', line)) and found[1] not in others
    }


@pytest.mark.skipif(sys.platform != "linux", reason="strace")
def test_no_settings_of_the_machine_are_read(
    forge: Forge, work: Path, need: Callable[[str], str]
) -> None:
    """Neither libssh's nor, where it is inside the library, OpenSSL's."""
    program = str(Path(sysconfig.get_path("scripts"), "plue-ssh"))
    person = forge.people()["alice"]
    keys = [{"principal": "alice", "keys": person["keys"], "rules": person["rules"]}]
    (work / "keys.json").write_text(json.dumps(keys))
    (work / "config.json").write_text(json.dumps({"repositories": str(forge.repositories)}))
    (work / "openssl.cnf").write_text("no settings at all\n")
    traced = work / "trace"
    command = [need("strace"), "-f", "-qq", "-e", "trace=%file", "-o", str(traced)]
    command += [program, "serve", "--config", "config.json", "--keys", "keys.json"]
    command += ["--host-key", str(forge.keys["host"].private), "--port", "0"]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(work),
        "OPENSSL_CONF": str(work / "openssl.cnf"),
        "OPENSSL_MODULES": str(work),
        "OPENSSL_ENGINES": str(work),
    }
    with subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, text=True
    ) as strace:
        try:
            port = json.loads(strace.stdout.readline())["port"]
            client = Client(At(forge, port))
            assert client.git("ls-remote", client.url("alice/project"))
        finally:
            children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children").read_text()
            subprocess.run(["kill", *children.split()], check=True)
    opened = {path for path in opened_by(traced.read_text(), program) if path.startswith("/")}
    own = (str(forge.repositories), str(forge.keys["host"].private), "/proc/self/fd/")
    libraries = {path for path in opened if re.match(r"(/usr)?/lib\S*\.so|/etc/ld\.so", path)}
    others = {path for path in opened if not path.startswith(own) and not path.endswith("/git")}
    others -= libraries
    if BUNDLED:
        assert others == set()
        assert not [path for path in libraries if "ssl" in path or "crypto" in path]
    else:  # the system's OpenSSL follows its settings
        assert others <= {str(work / "openssl.cnf")}


# A host that uses OpenSSL itself, before, while and after a server is there.
HOST = """
import _ctypes, ctypes, gc, hashlib, os, ssl, subprocess, sys

def shake_hands():
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain({certificate!r})
    client = ssl.create_default_context(cafile={certificate!r})
    a = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    b = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (a, b) * 4:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    a.write(b"hello")
    assert b.read() == b"hello" and a.version() == "TLSv1.3"

def clone():
    subprocess.run({list_remote!r} + [f"ssh://git@127.0.0.1:{{server.port}}/alice/project"],
                   env=dict(os.environ, **{environment!r}), check=True, stdout=subprocess.DEVNULL)

def rss_kb():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4

if {tls_first!r}:
    shake_hands()
from pyplue import ffi
from pyplue.ssh import GitServer, Principal
server = GitServer({repositories!r}, port=0, host_key={host_key!r},
                   keys={{"alice": Principal({keys!r}, ["read *"])}})
for _ in range(3):
    with server:
        clone()
        shake_hands()
        # A child has neither the server nor its threads, but both OpenSSLs.
        child = os.fork()
        if child == 0:
            shake_hands()
            hashlib.scrypt(b"a", salt=b"b", n=2, r=1, p=1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        clone()
    shake_hands()
before = rss_kb()
for _ in range(40):
    with server:
        pass
grown = rss_kb() - before
assert grown < 1024, f"{{grown}} KB for 40 starts"

# Another copy of it, which is unloaded.
handle = ctypes.CDLL({copy!r})
handle.plue_ssh_libssh_version.restype = ctypes.c_char_p
assert handle.plue_ssh_libssh_version()
assert {copy!r} in open("/proc/self/maps").read()
_ctypes.dlclose(handle._handle)
shake_hands()
with server:
    clone()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.parametrize("tls_first", [True, False], ids=["TLS first", "server first"])
def test_a_host_with_its_own_openssl(forge: Forge, work: Path, tls_first: bool) -> None:
    client = Client(At(forge, 0))
    # Its ports are not known beforehand.
    ssh = shlex.join(client.ssh_command).replace("HostKeyChecking=yes", "HostKeyChecking=no")
    copy = shutil.copy(ffi.ssh.path, work / "copy.so")
    script = HOST.format(
        certificate=str(certificate(work)),
        tls_first=tls_first,
        repositories=str(forge.repositories),
        host_key=str(forge.keys["host"].private),
        keys=forge.people()["alice"]["keys"],
        list_remote=["git", "ls-remote", "-q"],
        environment={"GIT_SSH_COMMAND": ssh},
        copy=str(copy),
    )
    answer = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script],
        env=forge.environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (answer.returncode, answer.stdout) == (0, "done\n"), answer.stderr


def certificate(folder: Path) -> Path:
    """For localhost, with its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "certificate.pem"
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path
