"""A pytest plugin: `import jwt` imports pyplue.jwt. Writes how each test ended to a file.

PyJWT's tests reach into a few modules of PyJWT that pyplue.jwt has no use for. They are stood in
for here; what is not HS256 is absent, as in a PyJWT without the package cryptography.
"""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pyplue.jwt
from pyplue.jwt import api_jwk, api_jws, api_jwt, base64url, exceptions, types, warnings


class NotInPyplue:
    """PyJWT's other algorithms: what their tests do with them fails."""


algorithms = ModuleType("jwt.algorithms")
algorithms.__dict__.update(
    has_crypto=False,
    requires_cryptography=set(),
    get_default_algorithms=lambda: {"HS256": NotInPyplue()},
    AllowedRSAKeys=NotInPyplue,
    HMACAlgorithm=NotInPyplue,
    NoneAlgorithm=NotInPyplue,
)

sys.modules["jwt"] = pyplue.jwt
for name, module in {
    "algorithms": algorithms,
    "api_jwk": api_jwk,
    "api_jws": api_jws,
    "api_jwt": api_jwt,
    "exceptions": exceptions,
    "types": types,
    "utils": base64url,
    "warnings": warnings,
}.items():
    sys.modules[f"jwt.{name}"] = module


outcomes: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes))
