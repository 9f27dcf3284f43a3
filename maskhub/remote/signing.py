"""Signatures of mask files by Ed25519 keys, each a small file beside its mask: ``docs/remotes.md``, "Signatures"."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from maskhub.errors import FormatError, MissingError, SignatureError, library, reason, same_kind
from maskhub.storage.regular import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SUFFIX = ".sig"  # after the whole name of the mask's file
PASSPHRASE = "MASKHUB_KEY_PASSPHRASE"  # noqa: S105  # the variable that opens an encrypted key
MAKE = "Make keys: openssl genpkey -algorithm ed25519 -out key.pem, and openssl pkey -in key.pem -pubout -out pub.pem."


class Signature(msgspec.Struct, frozen=True):
    """A signature's file: the public key and what it signed with, in hexadecimal digits."""

    format: Literal["maskhub-signature-1"]
    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$", max_length=128)]


def sign(content: bytes | memoryview, private: Ed25519PrivateKey) -> bytes:
    """The signature's file for a mask file of this content. Equal content and key give equal bytes."""
    public = private.public_key().public_bytes_raw()
    made = Signature("maskhub-signature-1", public.hex(), private.sign(_statement(content)).hex())
    return msgspec.json.encode(made)


def check(content: bytes | memoryview, signature: bytes | None, public: Ed25519PublicKey, name: str) -> None:
    """SignatureError, about ``name``, unless ``signature`` is of this content and by this key.

    ``signature`` is its file's content, None where there is none.
    """
    if signature is None:
        raise SignatureError(f"{name}: not signed", hint="Ask its maker to push it with --sign.")
    try:
        found = msgspec.json.decode(signature, type=Signature)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise SignatureError(f"{name}: its signature is not valid: {reason(error)}") from error
    wanted = public.public_bytes_raw().hex()
    if found.key != wanted:
        raise SignatureError(
            f"{name}: signed with another key than the one asked for: {found.key}, not {wanted}",
            hint="Name its maker's key.",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(bytes.fromhex(found.signature), _statement(content))
    except InvalidSignature as error:
        raise SignatureError(f"{name}: its signature is not one of this file", hint="Do not use it.") from error


def public_key(path: str | Path) -> Ed25519PublicKey:
    """The public key in a file: PEM, or a line of OpenSSH's. Raises SignatureError."""
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key

    if b"PRIVATE KEY" in content:
        raise SignatureError(f"{path}: a private key, and the public one is needed", hint=MAKE)
    try:
        key = (load_ssh_public_key if content.startswith(b"ssh-") else load_pem_public_key)(content)
    except Exception as error:  # the library raises many kinds
        raise SignatureError(f"{path}: not a public key: {reason(error)}", hint=MAKE) from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path}: not an Ed25519 key", hint=MAKE)
    return key


def private_key(path: str | Path) -> Ed25519PrivateKey:
    """The private key in a file: PEM (PKCS 8) or OpenSSH's; MASKHUB_KEY_PASSPHRASE opens an encrypted one.

    Raises SignatureError.
    """
    content = _read(path)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else load_pem_private_key
    try:
        try:
            key = load(content, None)
        except TypeError:  # it is encrypted
            key = load(content, os.environ[PASSPHRASE].encode())
    except KeyError:
        hint = f"Put its passphrase into the variable {PASSPHRASE}."
        raise SignatureError(f"{path}: the key is encrypted", hint=hint) from None
    except Exception as error:  # the library raises many kinds
        raise SignatureError(f"{path}: not a private key, or not usable: {reason(error)}", hint=MAKE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path}: not an Ed25519 key", hint=MAKE)
    return key


def _read(path: str | Path) -> bytes:
    """A key's file; MaskhubError where the library that reads keys is missing."""
    library("cryptography", "signatures", "'maskhub[sign]'")
    try:
        with open_regular(path) as file:
            return file.read()
    except MissingError as error:
        raise MissingError(error.message, hint=MAKE) from error
    except FormatError as error:
        raise SignatureError(error.message, hint=MAKE) from error
    except OSError as error:
        raise same_kind(error, SignatureError)(
            f"{path}: the key cannot be read: {error.strerror}", hint=MAKE
        ) from error


def _statement(content: bytes | memoryview) -> bytes:
    """What is signed; the first line keeps it apart from all else that a key may sign."""
    return f"maskhub signature 1\nsha256 {hashlib.sha256(content).hexdigest()}\n".encode()
