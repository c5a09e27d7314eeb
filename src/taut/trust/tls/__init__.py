"""TLS 1.3: certificates read with care, swapped whole under live listeners, checked again on what was open before."""

from taut.trust.tls.client import ClientFiles, client_context
from taut.trust.tls.files import TlsFiles
from taut.trust.tls.issue import Issued, create_authority, issue_client, issue_server
from taut.trust.tls.live import LiveTls, Seen
from taut.trust.tls.material import WARN_DAYS, Facts, Material, read_facts, read_material
from taut.trust.tls.peers import PeerFacts, is_trusted, peer_of, peer_of_pem

__all__ = [
    "WARN_DAYS",
    "ClientFiles",
    "Facts",
    "Issued",
    "LiveTls",
    "Material",
    "PeerFacts",
    "Seen",
    "TlsFiles",
    "client_context",
    "create_authority",
    "is_trusted",
    "issue_client",
    "issue_server",
    "peer_of",
    "peer_of_pem",
    "read_facts",
    "read_material",
]
