"""Who packed a bundle: an Ed25519 signature over its digest, in a file of its own beside the content.

The digest covers every file of a bundle but this one, so signing changes no digest and can be done after packing, by whoever holds the
key: a gate, a release step, a person. A server given public keys refuses what none of them signed (`python -m serving --signed-by FILE`).
RFC 8032, by the `cryptography` package.
"""

import base64
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.bundle.bundle import SIGNATURE, BadBundle, Bundle, verify

_WHAT = b"shortlist bundle "  # what is signed: this and the digest, so that the key's other signatures prove nothing here


class BadKey(ValueError):
    """A file does not hold the key that is needed; the message says which one is."""


def make_key(private: Path) -> Path:
    """A new key: `private` (PEM, read by its owner alone) and `<private>.pub`, which is returned. Never overwrites one."""
    if private.exists():
        raise BadKey(f"{private} exists: sign with it, or name another file")
    key, public = Ed25519PrivateKey.generate(), private.with_name(private.name + ".pub")
    private.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return public


def sign(folder: Path, private: Path) -> str:
    """Sign a whole bundle and return its digest. Raises `BadBundle` where it is not what it says, `BadKey` where the file holds no key."""
    digest = verify(folder)
    signature = base64.b64encode(_private(private).sign(_WHAT + digest.encode()))
    partial = folder.parent / f".{folder.name}.{SIGNATURE}"  # not in the folder: half a signature would be an extra file there
    partial.write_bytes(signature + b"\n")
    os.replace(partial, folder / SIGNATURE)
    return digest


def load_signed(folder: Path, verified: bool = True, signed_by: Path | None = None) -> Bundle:
    """`Bundle.load` for a server, of what a key of `signed_by` signed where one is asked for.

    Its files are hashed then, whoever hashed them before.
    """
    bundle = Bundle.load(folder, verified or signed_by is not None, user_lists_when_read=True)
    if signed_by is not None:
        check_signature(folder, bundle.digest, signed_by)
    return bundle


def check_signature(folder: Path, digest: str, signed_by: Path) -> None:
    """Raises `BadBundle` unless a key of `signed_by` signed this digest: a public key's file, or a folder of several (*.pub).

    `digest`: what the content was found to be.
    """
    keys = [_public(path) for path in (sorted(signed_by.glob("*.pub")) if signed_by.is_dir() else [signed_by])]
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes().strip(), validate=True)
    except FileNotFoundError:
        raise BadBundle(f"bundle {digest} is not signed: sign it (shortlist bundle sign {folder}), or ask for no signature") from None
    except ValueError as error:
        raise BadBundle(f"{folder / SIGNATURE} is no signature ({error}): sign the bundle again") from None
    for key in keys:
        try:
            key.verify(signature, _WHAT + digest.encode())
        except InvalidSignature:
            continue
        return
    raise BadBundle(f"bundle {digest} was signed by no key of {signed_by} ({len(keys)}): fetch it again, or give its signer's public key")


def _private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError:
        raise BadKey(f"there is no key {path}: make one (shortlist bundle key {path})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} is not a private key in PEM without a password ({error})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} is a {type(key).__name__}, expected an Ed25519 private key: make one (shortlist bundle key FILE)")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except FileNotFoundError:
        raise BadKey(f"there is no public key {path}: it lies beside the key that signed, as KEY.pub") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey(f"{path} is not a public key in PEM ({error})") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey(f"{path} is a {type(key).__name__}, expected an Ed25519 public key")
    return key
