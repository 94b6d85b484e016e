"""A pytest plugin: `import jwt` imports pyplue.jwt.

PyJWT's tests reach into a few modules of PyJWT that pyplue.jwt has no use for. They are stood in
for here; what is not HS256 is absent, as in a PyJWT without the package cryptography.
"""

import sys
from types import ModuleType

import pyplue.jwt
from pyplue.jwt import api_jwk, api_jws, api_jwt, base64url, exceptions, types, warnings


class NotInPyplue:
    """PyJWT's other algorithms: what their tests do with them fails."""


algorithms = ModuleType("jwt.algorithms")
algorithms.__dict__.update(
    has_crypto=False,
    get_default_algorithms=lambda: {"HS256": NotInPyplue()},
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
