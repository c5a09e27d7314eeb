"""Configuration: where an installation keeps its state. The only reader of environment variables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_size

PREFIX: Final = "TAUT_"
OF_CONTROL: Final = (
    "TAUT_BUS", "TAUT_KEYS", "TAUT_KEYS_PASSPHRASE", "TAUT_RECORDS", "TAUT_S3_ACCESS_KEY_ID", "TAUT_S3_SECRET_ACCESS_KEY",
)  # fmt: skip
"""Variables with what opens the installation's stores: the data plane has no use for them and does not get them."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """One installation. Each field but `home` can be set by `TAUT_<FIELD>` in the environment.

    home: folder of the installation's state.
    records: URL of the database, `sqlite:` for home/taut.db or `postgresql://…`.
    blobs: URL of the object store, `file:` for home/blobs, encrypted unless `file:?sealed=no` says otherwise, or
        `s3://bucket/prefix`.
    scratch: folder for what is worked on and lies in the clear meanwhile: rows on their way into jobs, copies of sealed blobs.
        A file system in memory keeps them off the disk. Empty is the home.
    bus: URL of the broker of streams, `records:` for a log in the database, `redis://…`, `nats://…` or `kafka://…`.
    online: URL of the store of online features, `sqlite:` for home/online.db, or `redis://…`, which further machines reach too.
    ledger_copy: folder for the copy of signed checkpoints; put it where an insider of the installation cannot write.
    keys: URL of who holds the keys, `file:` for home/keys, `pkcs11:token=…`, `vault+https://…` or `kms://REGION/PREFIX`.
    keys_passphrase: opens them: the passphrase of files, without which file permissions protect them; the PIN of an HSM,
        the token of a Vault, the access key of KMS.
    sandbox: names of isolation that jobs must have or not run, such as `netns landlock`; empty takes what there is.
    model_memory: how much memory models may take in all gateways of this machine together, such as `4GiB`; empty is half of
        what the machine or the control group has.
    devices: prices of an hour of a core and of each accelerator that models may run on, with the memory that one worker may take
        of it, such as `cpu=0.05 cuda:0=2.5,20GiB`; empty has no accelerator.
    otlp: URL of a collector of OpenTelemetry traces over HTTP, such as `http://127.0.0.1:4318`; empty traces nothing.
    otlp_ratio: of the requests without a `traceparent`, how many are traced, 0 to 1.
    otlp_headers: sent to the collector, `name=value,name=value`.
    tls_cert, tls_key: PEM files with which every plane speaks TLS 1.3, and only that; without them, loopback only.
    tls_client_ca: PEM file of authorities; with it every client must show a certificate of theirs.
    watch_window: how long requests are counted before shares are judged, such as `60s`.
    origin: address at which browsers reach control, such as `https://ml.example.org:8081`; without it a browser signs nobody in by a
        provider, and passkeys are for `http://localhost`.
    oidc_issuer, oidc_client_id: an OpenID provider at which people sign in; its client's secret, if it has one, is the secret
        `oidc/client-secret`.
    oidc_name: the claim that names a person who comes for the first time.
    oidc_roles: roles by claims, `CLAIM:VALUE=ROLE` with spaces between; without any, administrators link accounts and give roles.
    tls_ca: PEM file of an authority beside the system's, of whom alerts are sent to. (The command line takes the same variable for
        `--url`.)
    advisories: a mirror of known vulnerabilities, a folder or a zip of OSV records of PyPI; with it the model gate audits the
        packages of each run, and rejects where it could not. advisories_max_age: how old it may be, such as `7d`.
    s3_*: how to reach an object store other than AWS; without keys, the machine's own role decides.
    """

    home: Path
    records: str = "sqlite:"
    blobs: str = "file:"
    scratch: str = ""
    bus: str = "records:"
    online: str = "sqlite:"
    ledger_copy: str = ""
    keys: str = "file:"
    keys_passphrase: str = ""
    sandbox: str = ""
    model_memory: str = ""
    devices: str = ""
    otlp: str = ""
    otlp_ratio: str = "0.01"
    otlp_headers: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    watch_window: str = "60s"
    origin: str = ""
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_name: str = "preferred_username"
    oidc_roles: str = ""
    tls_ca: str = ""
    advisories: str = ""
    advisories_max_age: str = "7d"
    s3_endpoint: str = ""
    s3_region: str = "us-east-1"
    s3_access_key_id: str = ""
    s3_secret_access_key: str = ""

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def work(self) -> Path:
        """Folder of this home's own for what is worked on. Raises InvalidInput for one that jobs cannot share."""
        if not self.scratch:
            return self.home
        folder = Path(self.scratch).expanduser().resolve()
        if folder.is_relative_to("/dev/shm"):  # noqa: S108 - it is refused
            raise InvalidInput(
                "TAUT_SCRATCH lies in /dev/shm, of which each job has its own: mount a tmpfs elsewhere"
            )
        return folder / f"taut-{hashlib.sha256(str(self.home).encode()).hexdigest()[:16]}"

    @property
    def model_memory_bytes(self) -> int | None:
        """Return the memory for models; None where it is not set. Raises InvalidInput for what is no size."""
        return parse_size(self.model_memory) if self.model_memory else None

    @property
    def seals_blobs(self) -> bool:
        """Whether taut itself encrypts what it writes to the object store: in folders, unless their URL says otherwise."""
        parts = urlsplit(self.blobs)
        return parts.scheme == "file" and dict(parse_qsl(parts.query)).get("sealed", "yes") == "yes"

    @classmethod
    def load(cls, home: Path, environ: Mapping[str, str]) -> Config:
        """Read the configuration. Raises InvalidInput for a variable that is close to a known one, but is none."""
        fields = [name for name in cls.__struct_fields__ if name != "home"]
        known = {PREFIX + name.upper(): name for name in fields}
        for variable in environ:
            if not variable.startswith(PREFIX) or variable in known:
                continue
            if near := get_close_matches(variable, known, n=1, cutoff=0.85):
                raise InvalidInput(f"{variable} is no setting: did you mean {near[0]}?")
        values = {name: environ[variable] for variable, name in known.items() if variable in environ}
        return cls(home=home.expanduser().resolve(), **values)
