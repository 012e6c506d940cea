"""Certificates made for a test, with the openssl of the system."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for `name` and its key, in files that are replaced at once."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / "cert.new", folder / "key.new"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", str(made[1]), "-out", str(made[0])),
        ],
        check=True,
        capture_output=True,
    )
    return made[0].replace(folder / "cert.pem"), made[1].replace(folder / "key.pem")
