"""flask-jwt-extended, a program written by others for PyJWT, with pyplue.jwt in its place."""

from __future__ import annotations

import os
import subprocess
import sys

from source_tree import ROOT

PROGRAM = """
import jwt_is_pyplue  # from here on `import jwt` is pyplue.jwt
import datetime
import jwt
import pyplue.jwt
from flask import Flask, jsonify
from flask_jwt_extended import (
    JWTManager, create_access_token, create_refresh_token, get_jwt, jwt_required,
)

assert jwt is pyplue.jwt
app = Flask("app")
app.config["JWT_SECRET_KEY"] = "a secret of at least 32 bytes, please"
JWTManager(app)

@app.get("/claims")
@jwt_required()
def claims():
    return jsonify(get_jwt())

def answer(token):
    response = app.test_client().get("/claims", headers={"Authorization": f"Bearer {token}"})
    return response.status_code, response.get_json()

with app.app_context():
    good = create_access_token(identity="ann", additional_claims={"admin": True})
    status, body = answer(good)
    assert (status, body["sub"], body["admin"]) == (200, "ann", True), (status, body)
    late = create_access_token(identity="ann", expires_delta=datetime.timedelta(seconds=-1))
    assert answer(late) == (401, {"msg": "Token has expired"}), answer(late)
    forged = good[:-3] + ("AAA" if good[-3:] != "AAA" else "BBA")
    assert answer(forged) == (422, {"msg": "Signature verification failed"}), answer(forged)
    assert answer("a.b") == (422, {"msg": "Not enough segments"}), answer("a.b")
    assert answer(create_refresh_token(identity="ann"))[0] == 422
print("done")
"""


def test_flask_jwt_extended_runs_on_pyplue() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests/jwt/pyjwt_suite:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "done\n", done.stderr
