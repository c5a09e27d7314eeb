"""The data plane: gateways and the runtime, fed by signed snapshots."""
