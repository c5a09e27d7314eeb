"""Edge: the bundles that left the installation, and what the devices that run them report, each report once."""

from taut.lifecycle.edge.devices import BundleFacts, DeviceInfo, Devices
from taut.lifecycle.edge.tables import metadata

__all__ = ["BundleFacts", "DeviceInfo", "Devices", "metadata"]
