"""The keys below the root: the tenant's, the installation's by name, and one a person, each wrapped by the one above it."""

from taut.trust.envelope.installation import InstallationKeys
from taut.trust.envelope.keyring import KEY_BYTES, KEY_ID_BYTES, Keyring, SubjectKey, mac_text
from taut.trust.envelope.tables import metadata
from taut.trust.envelope.tenant import TenantKeys

__all__ = [
    "KEY_BYTES",
    "KEY_ID_BYTES",
    "InstallationKeys",
    "Keyring",
    "SubjectKey",
    "TenantKeys",
    "mac_text",
    "metadata",
]
