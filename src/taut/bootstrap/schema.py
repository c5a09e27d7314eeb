"""Every table of the installation, gathered from the rooms: what migrations are made from."""

from __future__ import annotations

from sqlalchemy import MetaData


def all_metadata() -> tuple[MetaData, ...]:
    """Return the tables of each room, in the order in which they are made."""
    from taut.adapters.bus.tables import metadata as bus
    from taut.adapters.stories.tables import metadata as stories
    from taut.fleet.admission.tables import metadata as admission
    from taut.fleet.log.tables import metadata as scale_log
    from taut.fleet.scaling.tables import metadata as scaling
    from taut.lifecycle.batch.tables import metadata as batch
    from taut.lifecycle.data.tables import metadata as data
    from taut.lifecycle.edge.tables import metadata as edge
    from taut.lifecycle.features.tables import metadata as features
    from taut.lifecycle.monitoring.tables import metadata as monitoring
    from taut.lifecycle.objectives.tables import metadata as objectives
    from taut.lifecycle.plans.tables import metadata as plans
    from taut.lifecycle.registry.tables import metadata as registry
    from taut.lifecycle.release.tables import metadata as release
    from taut.lifecycle.training.tables import metadata as training
    from taut.lifecycle.triggers.tables import metadata as triggers
    from taut.trust.breakglass.tables import metadata as breakglass
    from taut.trust.containment.tables import metadata as containment
    from taut.trust.deliveries.tables import metadata as deliveries
    from taut.trust.envelope.tables import metadata as sealing
    from taut.trust.findings.tables import metadata as findings
    from taut.trust.identity.tables import metadata as identity
    from taut.trust.incidents.tables import metadata as incidents
    from taut.trust.ledger.tables import metadata as ledger
    from taut.trust.lineage.tables import metadata as lineage
    from taut.trust.shares.tables import metadata as shares
    from taut.trust.signin.tables import metadata as signin
    from taut.trust.svid.tables import metadata as svid

    return (
        ledger,
        lineage,
        identity,
        signin,
        svid,
        breakglass,
        findings,
        containment,
        deliveries,
        incidents,
        shares,
        sealing,
        stories,
        bus,
        plans,
        data,
        features,
        training,
        registry,
        release,
        batch,
        edge,
        monitoring,
        objectives,
        triggers,
        scale_log,
        scaling,
        admission,
    )
