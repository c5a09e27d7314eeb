"""Everything that the command line, the console and the API can do, in one table."""

from __future__ import annotations

from taut.entrypoints.operations.operation import Caller, Operation, OperationTable, perform

__all__ = ["Caller", "Operation", "OperationTable", "operation_table", "perform"]


def operation_table() -> OperationTable:
    """Collect the operations of every module of this package, each named here."""
    from taut.entrypoints.operations import (
        alerts,
        batch,
        data,
        drills,
        edge,
        features,
        fleet,
        flows,
        incidents,
        keys,
        ledger,
        machines,
        membership,
        models,
        monitor,
        objectives,
        passkeys,
        people,
        plans,
        policies,
        predictions,
        releases,
        runs,
        security,
        service,
        sessions,
        status,
        streams,
        triggers,
    )

    modules = (
        alerts,
        batch,
        data,
        drills,
        edge,
        features,
        fleet,
        flows,
        incidents,
        keys,
        ledger,
        machines,
        membership,
        models,
        monitor,
        objectives,
        passkeys,
        people,
        plans,
        policies,
        predictions,
        releases,
        runs,
        security,
        service,
        sessions,
        status,
        streams,
        triggers,
    )
    return OperationTable(operation for module in modules for operation in module.OPERATIONS)
