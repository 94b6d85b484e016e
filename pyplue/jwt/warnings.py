"""The warnings of pyplue.jwt, under PyJWT's names."""


class InsecureKeyLengthWarning(UserWarning):
    """The secret has fewer than 32 bytes, HS256's hash size (RFC 7518, 3.2). Once per key."""


class RemovedInPyjwt3Warning(DeprecationWarning):
    """An argument that `decode` ignores, as PyJWT 2 does, and that PyJWT 3 will not take."""
