"""What people were told: one delivery for each change of an alert and each receiver, until it arrived or was given up."""

from taut.trust.deliveries.deliveries import Deliveries, Delivery, Outcome, delivery_of
from taut.trust.deliveries.tables import metadata

__all__ = ["Deliveries", "Delivery", "Outcome", "delivery_of", "metadata"]
