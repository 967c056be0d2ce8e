"""Sealing: encrypts lines of files at rest with AES-256-GCM, by the package `cryptography`.

The key is derived from a secret by HKDF (RFC 5869). Each line has a random nonce of 96 bits, which
is safe for billions of lines under one key.
"""

import base64
import binascii
import os
from importlib import import_module
from typing import Any

MARK = b"tw1:"
_NONCE_BYTES = 12


class Sealed(ValueError):  # noqa: N818 - reads as what happened
    """A line that cannot be read with this key."""


class Seal:
    """Encrypts and decrypts lines with one key."""

    def __init__(self, secret: str, purpose: bytes) -> None:
        """Derive the key from `secret` for a `purpose`. ImportError without `cryptography`."""
        aead: Any = import_module("cryptography.hazmat.primitives.ciphers.aead")
        hashes: Any = import_module("cryptography.hazmat.primitives.hashes")
        hkdf: Any = import_module("cryptography.hazmat.primitives.kdf.hkdf")
        invalid: Any = import_module("cryptography.exceptions")
        derive = hkdf.HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose)
        self._cipher = aead.AESGCM(derive.derive(secret.encode()))
        self._purpose = purpose
        self._invalid = invalid.InvalidTag

    def seal(self, line: bytes) -> bytes:
        """Return a line encrypted, as text."""
        nonce = os.urandom(_NONCE_BYTES)
        return MARK + base64.b64encode(nonce + self._cipher.encrypt(nonce, line, self._purpose))

    def unseal(self, line: bytes) -> bytes:
        """Return what was sealed; Sealed if it was not with this key, or was changed."""
        try:
            data = base64.b64decode(line.removeprefix(MARK), validate=True)
            opened: bytes = self._cipher.decrypt(
                data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._purpose
            )
        except (self._invalid, binascii.Error, ValueError) as exc:
            raise Sealed("sealed with another key, or damaged") from exc
        return opened
