"""Every option of the service, once: name, meaning, unit, bounds, default. The only reader of the
environment: option `watch_seconds` is the variable TANDEM_WATCH_SECONDS and the flag
`--watch-seconds` of `tandem serve`.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contract.errors import SettingsError
from service.split import Split, parse_split


def _split(value: object) -> object:
    return parse_split(value) if isinstance(value, str) else value


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TANDEM_", frozen=True, extra="ignore")

    store: str = Field("store", description="Where bundles live: a path.")
    channels: Annotated[Split, NoDecode, BeforeValidator(_split)] = Field(
        Split((("live", 1),)),
        description="The channels of the store that are served, the main one first, with the "
        "weights by which users are split: live:9,challenger:1. One of weight 0 gets no users.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes. One uses one core; they share all mapped files.",
    )
    state: str | None = Field(
        None,
        description="Directory of the journal and of what else belongs to this service. "
        "Default: 'state' beside a local store.",
    )
    journal: SecretStr | None = Field(
        None,
        description="The journal, where it is not in the state directory: a path, or "
        "redis://host:port/0 for one that services on several machines share.",
    )
    drain_seconds: float = Field(
        1.0,
        ge=0,
        le=3600,
        description="Seconds that a worker goes on accepting after SIGTERM, while it is not ready: "
        "a load balancer takes so long to look elsewhere.",
    )
    watch_seconds: float = Field(
        1.0, gt=0, le=3600, description="Seconds between two looks at the channel for a new bundle."
    )
    read_key: SecretStr | None = Field(
        None,
        description="Keys that reading requires, sent as 'Authorization: Bearer KEY'; several are "
        "separated by blanks, each of at least 16 characters. Without one, reading is open.",
    )
    read_key_file: str | None = Field(
        None, description="File with more of them, one a line; read again when it changes."
    )
    write_key: SecretStr | None = Field(
        None,
        description="Keys that writing items and events requires; they also open reading. Without "
        "one, writing is open, which an address other than loopback does not allow.",
    )
    write_key_file: str | None = Field(
        None, description="File with more of them, one a line; read again when it changes."
    )
    admin_key: SecretStr | None = Field(
        None,
        description="Keys that reload and rollback require; they also open writing and reading. "
        "Without one, both are refused.",
    )
    admin_key_file: str | None = Field(
        None, description="File with more of them, one a line; read again when it changes."
    )
    open_writes: bool = Field(
        False,
        description="Let everyone write who reaches the service, on any address: true or false.",
    )
    tls_certificate: str | None = Field(
        None, description="File with the certificate chain, PEM; with it, HTTPS is served."
    )
    tls_key: str | None = Field(None, description="File with the certificate's private key, PEM.")
    access_log: bool = Field(False, description="Log one line for every request: true or false.")
    max_k: int = Field(1000, ge=1, le=10_000, description="Largest k of one request.")
    max_history: int = Field(
        1000, ge=1, le=100_000, description="Most items in the history of one request."
    )
    max_exclude: int = Field(
        10_000, ge=1, le=100_000, description="Most item ids in the exclude list of one request."
    )
    max_include: int = Field(
        10_000, ge=1, le=100_000, description="Most item ids in the include list of one request."
    )
    max_filters: int = Field(
        100, ge=1, le=10_000, description="Most values and bounds in the filters of one request."
    )
    max_batch: int = Field(5000, ge=1, le=100_000, description="Most items or events in one POST.")
    max_recalls: int = Field(
        200, ge=1, le=10_000, description="Most requests in one batch of recommendations."
    )
    max_admitted: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Most recalls that one worker takes on at a time, those of batches among "
        "them; beyond it, 429.",
    )
    max_body: int = Field(
        8 * 2**20, ge=1024, le=2**30, description="Largest request body, in bytes; beyond it, 413."
    )
    max_features: int = Field(
        100, ge=1, le=10_000, description="Most features of one item or profile."
    )
    max_text: int = Field(
        10_000, ge=1, le=2**20, description="Most characters of one text in a feature."
    )
    max_user_events: int = Field(
        1000, ge=1, le=100_000, description="Most recent events kept in memory for each user."
    )
    cache_entries: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="Most answers that one worker keeps in memory; 0 keeps none.",
    )

    recheck_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the recalls that are looked at once more beside the requests: "
        "answered exactly, and compared with what the bundle's publisher saw; 0 for none.",
    )

    def state_directory(self) -> Path:
        if self.state is not None:
            return Path(self.state)
        return Path(self.store.removeprefix("file://")).absolute().parent / "state"

    def journal_uri(self) -> str:
        if self.journal is not None:
            return self.journal.get_secret_value()
        return str(self.state_directory() / "journal.db")

    def runtime_directory(self) -> Path:
        """What only the processes of this one service share: metrics and worker slots."""
        return self.state_directory() / f"service-{self.port}"


SECRET = frozenset(("journal", "read_key", "write_key", "admin_key"))
"""No message shows what was found there."""


class Option(NamedTuple):
    """A setting as a flag of `tandem serve`."""

    flag: str
    name: str
    type_name: str
    help: str


def options() -> list[Option]:
    """All settings in order, for the command line."""
    return [
        Option(
            flag="--" + name.replace("_", "-"),
            name=name,
            type_name=_type_name(field.annotation),
            help=f"{field.description}" + _default(field.default),
        )
        for name, field in Settings.model_fields.items()
    ]


def read_settings() -> Settings:
    """Raises SettingsError naming the option, what was found and what is allowed."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        found = "" if name in SECRET else f", found {first['input']!r}"
        raise SettingsError(
            f"--{name.replace('_', '-')} (TANDEM_{name.upper()}): "
            f"{first['msg'].removeprefix('Value error, ')}{found}"
        ) from error


def _type_name(annotation: object) -> str:
    if annotation is int:
        return "NUMBER"
    if annotation is bool:
        return "BOOL"
    return "SECONDS" if annotation is float else "TEXT"


def _default(default: object) -> str:
    return f"  [default: {default}]" if default is not None else ""
