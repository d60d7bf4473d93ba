"""Who may do what: keys, and what each of them opens.

A request needs a level by its method and path alone, so that this is decided before anything of it
is parsed. A key of one level opens the levels below it. Where reading or writing has no key of its
own, it is open to all; administration without a key is off.
"""

import hmac
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from pydantic import SecretStr

from contract.errors import Forbidden, SettingsError, Unauthorized
from service.settings import Settings

log = logging.getLogger("tandem.access")

KEY = re.compile(r"[!-~]{16,512}")
REREAD_SECONDS = 1.0
"""A file of keys is looked at no more often than this."""
PUBLIC = frozenset(
    ("/healthz", "/readyz", "/console", "/docs", "/docs/oauth2-redirect", "/openapi.json")
)
"""Probes, and pages that hold nothing of the catalogue or the users."""
RECALLS = frozenset(("/v1/recommendations", "/v1/recommendations:batch"))
"""A POST to these changes nothing."""
READING = frozenset(("GET", "HEAD"))


class Level(IntEnum):
    PUBLIC = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


SETTINGS = {Level.READ: "read_key", Level.WRITE: "write_key", Level.ADMIN: "admin_key"}


def required(method: str, path: str) -> Level:
    """What a request needs. One that no route answers needs no less than one that is answered."""
    if method in READING:
        return Level.PUBLIC if path in PUBLIC else Level.READ
    if path in RECALLS and method == "POST":
        return Level.READ
    return Level.ADMIN if path.startswith("/v1/bundle") else Level.WRITE


class Access:
    """The keys of a service, as its settings and their files say now."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a key that is none and for a file that cannot be read."""
        self._keys = {
            level: _Keys(name, getattr(settings, name), getattr(settings, f"{name}_file"))
            for level, name in SETTINGS.items()
        }
        self.open = frozenset(
            level for level in (Level.PUBLIC, Level.READ, Level.WRITE) if not self._has_key(level)
        )
        """What needs no key. It stays so: a file of keys is never taken for empty."""
        self._looked = 0.0

    def check(self, method: str, path: str, authorization: bytes, now: float) -> None:
        """`now` is by a clock of seconds. Raises Unauthorized for a key that is missing or unknown,
        Forbidden for one that does not open this."""
        needed = required(method, path)
        if needed in self.open:
            return
        if not self._has_key(needed):
            raise Forbidden("administration is off; start the service with TANDEM_ADMIN_KEY")
        self._refresh(now)
        found = self._level(authorization)
        if found is None:
            raise Unauthorized("the key is missing or unknown: 'Authorization: Bearer KEY'")
        if found < needed:
            raise Forbidden(
                f"this needs the {needed.name.lower()} key, found the {found.name.lower()} key"
            )

    def _has_key(self, level: Level) -> bool:
        return level in self._keys and bool(self._keys[level].digests)

    def _level(self, authorization: bytes) -> Level | None:
        """The highest level that the key in this header opens. It is compared with every key, so
        that the time tells neither which one it is nor how much of it is right."""
        scheme, _, key = authorization.partition(b" ")
        given, opened = sha256(key.strip()).digest(), None
        for level, keys in self._keys.items():
            for digest in keys.digests:
                if hmac.compare_digest(given, digest) and scheme.lower() == b"bearer":
                    opened = level
        return opened

    def _refresh(self, now: float) -> None:
        if now - self._looked >= REREAD_SECONDS:
            self._looked = now
            for keys in self._keys.values():
                keys.refresh()


class _Keys:
    """The keys of one level, those of the setting and those of its file, as digests."""

    def __init__(self, name: str, given: SecretStr | None, file: str | None) -> None:
        self._name = name
        # An empty one is one: a variable that was not filled in must not open what it should close.
        keys = given.get_secret_value() if given is not None else None
        self._given = _digests(keys, f"TANDEM_{name.upper()}") if keys is not None else ()
        self._file = Path(file) if file is not None else None
        self._seen = self._stamp()
        self.digests = self._read()

    def refresh(self) -> None:
        """Read the file again where it has changed; what cannot be read changes nothing."""
        try:
            seen = self._stamp()
            if seen != self._seen:
                self._seen = seen
                self.digests = self._read()
                log.warning("%s: read again", self._file)
        except SettingsError as error:
            log.error("%s; the keys stay as they were", error)

    def _stamp(self) -> tuple[int, ...]:
        if self._file is None:
            return ()
        with self._told():
            found = self._file.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[bytes, ...]:
        if self._file is None:
            return self._given
        with self._told():
            text = self._file.read_text("ascii", "replace")
        return self._given + _digests(text, str(self._file))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingsError(
                f"--{self._name.replace('_', '-')}-file: {self._file} cannot be read "
                f"({error.strerror}); expected one key a line"
            ) from error


def require_safe(settings: Settings) -> None:
    """Raises SettingsError where strangers could write and nobody has said that they may."""
    access = Access(settings)
    if Level.WRITE not in access.open or settings.open_writes:
        return
    if not _is_loopback(settings.host):
        raise SettingsError(
            f"--host {settings.host}: whoever reaches it could write; set TANDEM_WRITE_KEY or "
            "--write-key-file, or say --open-writes true"
        )
    if Level.READ not in access.open:
        raise SettingsError(
            "--read-key: reading needs a key, and writing would need none; set TANDEM_WRITE_KEY or "
            "--write-key-file, or say --open-writes true"
        )


def _digests(text: str, where: str) -> tuple[bytes, ...]:
    """Of the keys in a text, which white space separates. No message quotes a key."""
    keys = text.split()
    if not keys:
        raise SettingsError(f"{where}: holds no key; expected one or several")
    for position, key in enumerate(keys, 1):
        if not KEY.fullmatch(key):
            raise SettingsError(
                f"{where}: key {position} of {len(keys)} has {len(key)} characters; expected 16 to "
                "512 of ASCII, as 'openssl rand -hex 32' makes them"
            )
    return tuple(sha256(key.encode()).digest() for key in keys)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
