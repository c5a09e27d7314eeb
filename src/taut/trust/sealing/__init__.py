"""Personal fields sealed under a key per person, so that forgetting the key forgets the person in every copy."""

from taut.trust.sealing.sealer import SEALED_PREFIX, Sealer, Unsealed

__all__ = ["SEALED_PREFIX", "Sealer", "Unsealed"]
