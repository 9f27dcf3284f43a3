from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskhub.errors import MaskhubError, MissingError, SignatureError
from maskhub.remote import signing
from tests.remote.keys import openssl, pair

CONTENT = b"any bytes"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(signing.PASSPHRASE, raising=False)
    return tmp_path


@pytest.fixture
def keys(folder: Path) -> tuple[Path, Path]:
    return pair()


def sign(key: Path | str, content: bytes | memoryview = CONTENT) -> bytes:
    return signing.sign(content, signing.private_key(key))


def refusal(content: bytes, signature: bytes | None, key: Path | str) -> str:
    with pytest.raises((SignatureError, MissingError)) as caught:
        signing.check(content, signature, signing.public_key(key), "x.msk")
    assert "\n" not in str(caught.value)
    return caught.value.message


def test_what_was_signed_passes(keys: tuple[Path, Path]) -> None:
    private, public = keys
    signature = sign(private)
    signing.check(CONTENT, signature, signing.public_key(public), "x.msk")
    signing.check(memoryview(CONTENT), signature, signing.public_key(str(public)), "x.msk")
    assert sign(str(private), memoryview(CONTENT)) == signature  # nothing random in it


def test_openssl_agrees(keys: tuple[Path, Path]) -> None:
    """The documentation's way to check a signature without MaskHub."""
    import hashlib

    private, public = keys
    found = json.loads(sign(private))
    Path("statement").write_text(f"maskhub signature 1\nsha256 {hashlib.sha256(CONTENT).hexdigest()}\n")
    Path("raw").write_bytes(bytes.fromhex(found["signature"]))
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", str(public), "-rawin", "-in", "statement", "-sigfile", "raw")
    openssl("pkey", "-pubin", "-in", str(public), "-outform", "DER", "-out", "der")
    assert Path("der").read_bytes()[-32:].hex() == found["key"]


def test_what_is_not_accepted(keys: tuple[Path, Path]) -> None:
    private, public = keys
    signature = sign(private)
    assert refusal(CONTENT, None, public) == "x.msk: not signed"
    assert refusal(CONTENT + b".", signature, public) == "x.msk: its signature is not one of this file"
    parts = json.loads(signature)
    flipped = parts | {"signature": f"{int(parts['signature'], 16) ^ 1:0128x}"}
    assert refusal(CONTENT, json.dumps(flipped).encode(), public) == "x.msk: its signature is not one of this file"

    _, other = pair("other")
    message = refusal(CONTENT, signature, other)
    assert message.startswith(f"x.msk: signed with another key than the one asked for: {parts['key']}, not ")
    # A right signature by another key, under the name of the wanted one.
    forged = json.loads(sign("other.pem")) | {"key": parts["key"]}
    assert refusal(CONTENT, json.dumps(forged).encode(), public) == "x.msk: its signature is not one of this file"


BROKEN: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"-----BEGIN SIGNATURE-----",
    "not UTF-8": b"\xff\xfe",
    "no object": b"[]",
    "deep": b"[" * 100_000,
    "no field": b'{"format": "maskhub-signature-1"}',
    "another format": b'{"format": "maskhub-signature-2", "key": "%s", "signature": "%s"}' % (b"0" * 64, b"0" * 128),
    "short": b'{"format": "maskhub-signature-1", "key": "%s", "signature": "%s"}' % (b"0" * 64, b"0" * 126),
    "not digits": b'{"format": "maskhub-signature-1", "key": "%s", "signature": "%s"}' % (b"z" * 64, b"0" * 128),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_signature_is_one_line(keys: tuple[Path, Path], case: str) -> None:
    assert refusal(CONTENT, BROKEN[case], keys[1]).startswith("x.msk: its signature is not valid: ")


def test_an_encrypted_key(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = pair("key", "-aes256", "-pass", "pass:open sesame")
    with pytest.raises(SignatureError, match=r"key.pem: the key is encrypted") as caught:
        sign(private)
    assert caught.value.hint == "Put its passphrase into the variable MASKHUB_KEY_PASSPHRASE."
    monkeypatch.setenv(signing.PASSPHRASE, "a secret guess")
    with pytest.raises(SignatureError, match=r"key.pem: not a private key, or not usable: ") as caught:
        sign(private)
    assert "guess" not in str(caught.value)
    monkeypatch.setenv(signing.PASSPHRASE, "open sesame")
    signing.check(CONTENT, sign(private), signing.public_key(public), "x.msk")


def test_keys_of_ssh_keygen() -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@home", "-f", "id"], check=True)
    signing.check(CONTENT, sign("id"), signing.public_key("id.pub"), "x.msk")


@pytest.fixture
def wrong(keys: tuple[Path, Path]) -> Iterator[None]:
    openssl("genpkey", "-algorithm", "rsa", "-out", "rsa.pem")
    openssl("pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub.pem")
    Path("junk").write_bytes(bytes(range(256)))
    Path("ssh-junk").write_bytes(b"ssh-ed25519 AAAA")
    Path("cut").write_bytes(keys[0].read_bytes()[:60])
    return


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("absent", "absent: no such file"),
        (".", ".: a folder, not a file"),
        ("junk", "junk: not a public key: "),
        ("ssh-junk", "ssh-junk: not a public key: "),
        ("key.pem", "key.pem: a private key, and the public one is needed"),
        ("rsa.pub.pem", "rsa.pub.pem: not an Ed25519 key"),
    ],
)
def test_public_keys_that_are_none(wrong: None, key: str, message: str) -> None:
    assert refusal(CONTENT, b"", key).startswith(message)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("absent", "absent: no such file"),
        ("junk", "junk: not a private key, or not usable: "),
        ("cut", "cut: not a private key, or not usable: "),
        ("key.pub.pem", "key.pub.pem: not a private key, or not usable: "),
        ("rsa.pem", "rsa.pem: not an Ed25519 key"),
    ],
)
def test_private_keys_that_are_none(wrong: None, key: str, message: str) -> None:
    with pytest.raises((SignatureError, MissingError)) as caught:
        sign(key)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.hint == signing.MAKE


def test_without_the_library_the_error_names_it(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for call in (lambda: sign(keys[0]), lambda: signing.public_key(keys[1])):
        with pytest.raises(MaskhubError, match=r"^signatures need cryptography") as caught:
            call()
        assert caught.value.hint == "Install it: pip install 'maskhub[sign]'."
