"""Keeps secrets at rest: each sealed under a key of its own, that key under a versioned master key.

A sealed value is: format (1 byte), version of the master key (4), fingerprint of the master key
(4), then the wrapped data key and the ciphertext, each behind its nonce. What stands in clear is
authenticated together with the context, so that a value cannot be moved to another place.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FORMAT = 1
KEY_BYTES = 32
NONCE_BYTES = 12  # what AES-GCM takes without hashing it, NIST SP 800-38D §5.2.1.1
TAG_BYTES = 16
FINGERPRINT_BYTES = 4

_HEADER = struct.Struct(f">BI{FINGERPRINT_BYTES}s")
_WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
_LEAST_BYTES = _HEADER.size + _WRAPPED_BYTES + NONCE_BYTES + TAG_BYTES

_FORBIDDEN_MODE = 0o037  # group may read: that is how Kubernetes mounts secrets
_FILE_HEADER = (
    "# Steward's master keys: a version and 32 bytes in base64 per line. The highest version\n"
    "# seals, the others still open. Keep a copy elsewhere: without it every stored secret is\n"
    "# lost. To rotate, `steward rotate-master-key` and restart: what older ones sealed is sealed\n"
    "# anew. A day later their lines can be taken out.\n"
)


class VaultError(Exception):
    """A secret cannot be sealed or opened."""


class BadMasterKeyFile(VaultError):
    """The master key file is missing, unreadable, open to others or malformed."""


class MissingKey(VaultError):
    """A value was sealed with a master key that this vault does not have."""


class NotAuthentic(VaultError):
    """A sealed value was changed, cut, or belongs to another context."""


class Vault:
    """Seals and opens; derives keys for other uses. Safe to use from any thread."""

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys.values()):
            raise ValueError(f"a vault needs at least one master key, of {KEY_BYTES} bytes each")
        self._masters = dict(keys)
        self._newest = max(keys)
        self._wrapping = {
            version: (
                AESGCM(_derived(key, b"steward/wrap")),
                _derived(key, b"steward/fingerprint", FINGERPRINT_BYTES),
            )
            for version, key in keys.items()
        }

    def __repr__(self) -> str:
        return f"Vault(versions={sorted(self._masters)})"

    @classmethod
    def open(cls, path: Path, *, create: bool) -> Vault:
        """The vault of a master key file; with `create` a missing one is made, mode 0600.

        Raises:
            BadMasterKeyFile: as its message says.
        """
        if create and not path.exists():
            _create(path)
        return cls(_read(path))

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypt under a fresh data key.

        `context` says where the value belongs, as ``provider/ip_…/api_key``; it is needed to open.
        """
        wrapping, _ = self._wrapping[self._newest]
        header = self.seals_begin
        data_key = secrets.token_bytes(KEY_BYTES)
        wrap_nonce, nonce = secrets.token_bytes(NONCE_BYTES), secrets.token_bytes(NONCE_BYTES)
        wrapped = wrapping.encrypt(wrap_nonce, data_key, _bound(b"key", header, context))
        body = AESGCM(data_key).encrypt(nonce, plaintext, _bound(b"value", header, context))
        return b"".join((header, wrap_nonce, wrapped, nonce, body))

    def open_sealed(self, sealed: bytes, context: str) -> bytes:
        """Decrypt what `seal` gave for the same context.

        Raises:
            MissingKey: the master key it was sealed with is not in this vault.
            NotAuthentic: it was changed, cut, or sealed for another context.
        """
        if len(sealed) < _LEAST_BYTES:
            raise NotAuthentic(
                f"a sealed value has {len(sealed)} bytes; the least is {_LEAST_BYTES}"
            )
        header = sealed[: _HEADER.size]
        layout, version, fingerprint = _HEADER.unpack(header)
        if layout != FORMAT:
            raise NotAuthentic(f"a sealed value has format {layout}; this vault knows {FORMAT}")
        found = self._wrapping.get(version)
        if found is None or found[1] != fingerprint:
            raise MissingKey(
                f"a value was sealed with master key {version}/{fingerprint.hex()}; this vault has "
                f"{', '.join(self._names())}: put the missing key back into the master key file"
            )
        key_end = _HEADER.size + _WRAPPED_BYTES
        wrapped = sealed[_HEADER.size : key_end]
        body = sealed[key_end:]
        try:
            data_key = found[0].decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(b"key", header, context)
            )
            return AESGCM(data_key).decrypt(
                body[:NONCE_BYTES], body[NONCE_BYTES:], _bound(b"value", header, context)
            )
        except InvalidTag:
            raise NotAuthentic(
                f"a sealed value does not belong to {context!r} or was changed"
            ) from None

    @property
    def seals_begin(self) -> bytes:
        """How what it seals now begins; what older master keys sealed begins otherwise."""
        return _HEADER.pack(FORMAT, self._newest, self._wrapping[self._newest][1])

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose, the same as long as the newest master key is."""
        return _derived(self._masters[self._newest], b"steward/derive/" + purpose.encode())

    def _names(self) -> list[str]:
        return [f"{version}/{mark.hex()}" for version, (_, mark) in sorted(self._wrapping.items())]


def _derived(key: bytes, info: bytes, length: int = KEY_BYTES) -> bytes:
    return HKDF(SHA256(), length, None, info).derive(key)


def _bound(part: bytes, header: bytes, context: str) -> bytes:
    # The header has a fixed length and `part` ends at the NUL, so that fields cannot blur.
    return part + b"\0" + header + context.encode()


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # A link, not a rename: a key that another process has just made must not be replaced.
    with _drafted(path, f"{_FILE_HEADER}{_line(1)}") as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)
    _settle(path)


def add_key(path: Path) -> int:
    """Add a new master key to a file, in which it is the newest; gives its version.

    Raises:
        BadMasterKeyFile: as its message says.
        OSError: it cannot be written.
    """
    version = max(_read(path)) + 1
    told = path.read_text(encoding="ascii")
    mode = stat.S_IMODE(path.stat().st_mode)
    whole = told if told.endswith("\n") else f"{told}\n"
    with _drafted(path, f"{whole}{_line(version)}") as draft:
        draft.chmod(mode)
        draft.replace(path)
    _settle(path)
    return version


def _line(version: int) -> str:
    return f"{version} {base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}\n"


@contextlib.contextmanager
def _drafted(path: Path, text: str) -> Iterator[Path]:
    """A file beside the path, with this in it; what of it is left is taken away."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".master-key-")  # made with mode 0600
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _settle(path: Path) -> None:
    """Let the disk have what the folder holds."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> dict[int, bytes]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise BadMasterKeyFile(
            f"there is no master key file {path}; restore it from its copy"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadMasterKeyFile(f"cannot read the master key file {path}: {error}") from None
    if mode & _FORBIDDEN_MODE:
        raise BadMasterKeyFile(
            f"the master key file {path} is open to others (mode {mode:04o}); chmod 600 it"
        )
    keys: dict[int, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        version, key = _parsed(path, number, line)
        if version in keys:
            raise BadMasterKeyFile(f"{path}, line {number}: version {version} stands there twice")
        keys[version] = key
    if not keys:
        raise BadMasterKeyFile(f"the master key file {path} holds no key; restore it from its copy")
    return keys


def _parsed(path: Path, number: int, line: str) -> tuple[int, bytes]:
    # What the line holds must not get into the message: it may be a key.
    wrong = BadMasterKeyFile(
        f"{path}, line {number} is not `<version> <{KEY_BYTES} bytes in base64>`"
    )
    words = line.split()
    if len(words) != 2 or not words[0].isdecimal() or not 0 < int(words[0]) < 2**32:
        raise wrong
    try:
        key = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise wrong from None
    if len(key) != KEY_BYTES:
        raise wrong
    return int(words[0]), key
