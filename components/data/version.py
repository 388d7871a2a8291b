"""Which version of its source an ingest would read: what makes the step run again when the world outside has changed.

A system's ingest is `module:function`. A function `fingerprint()` beside it names the source's version in a few words (a snapshot's number,
a table's last change); as long as they and the ingest's code stay the same, what was read is not read again.
"""

import hashlib
import importlib

from components.code_digest import SourceNotFound, module_file, sources_digest
from serving.system import load_system


class BadFingerprint(ValueError):
    """An ingest's `fingerprint` says nothing."""


def source_version(system: str, data: str = "") -> str | None:
    """The version of what the system's ingest reads; None: unknown, so it must run; empty: a folder is given, whose content is an input.

    Raises `components.code_digest.SourceNotFound` when the ingest is nowhere, `BadFingerprint` when its fingerprint is no text.
    """
    if data:
        return ""
    named = load_system(system)
    module, _, function = named.ingest.partition(":")
    says = f"the system {named.name} names its ingest {named.ingest!r}"
    file = module_file(module, says)
    loaded = importlib.import_module(module)
    if not callable(getattr(loaded, function, None)):
        raise SourceNotFound(f"{says}, but {file} has no function {function!r}: correct the name in the system's file")
    fingerprint = getattr(loaded, "fingerprint", None)
    if fingerprint is None:
        return None
    told = fingerprint()
    if not isinstance(told, str) or not told:
        raise BadFingerprint(f"{file}: fingerprint() gave {told!r}, expected the source's version in a few words, or leave it away")
    return hashlib.sha256(f"{named.ingest}\n{sources_digest([file])}\n{told}".encode()).hexdigest()
