"""Who may do what now: the policies of the plan that holds, and the built-in ones alone in an emergency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.lifecycle.plans import policy_of
from taut.trust.breakglass import is_emergency
from taut.trust.containment import refusal
from taut.trust.identity.principals import shows_key
from taut.trust.policy import Policy, PolicyDecision
from taut.trust.policy.actions import OWN

if TYPE_CHECKING:
    from taut.lifecycle.plans import Plans
    from taut.trust.breakglass import BreakGlass
    from taut.trust.containment import Contained
    from taut.trust.identity import Principal


class Rights:
    """Decides as `Policy` does, by what is applied at the moment of the question.

    glass: the register of emergencies. held: what holds a principal back now. Guarantees: policies are parsed once for each plan. Safe for several threads.
    """

    def __init__(self, plans: Plans, glass: BreakGlass, held: Callable[[str], Sequence[Contained]]) -> None:
        self.glass: Final = glass
        self._held: Final = held
        self._plans: Final = plans
        self._floor: Final = Policy()
        self._parsed: tuple[str | None, Policy] = (None, self._floor)

    def now(self) -> Policy:
        """Return the policies that hold now, a value that does not change any more.

        Raises Unavailable when those of the applied plan do not hold with this version of taut.
        """
        plan = self._plans.current_id()
        parsed = self._parsed
        if parsed[0] != plan:
            try:
                parsed = (plan, policy_of(self._plans.current()))
            except InvalidInput as error:
                raise Unavailable(
                    f"the policies of plan {plan} do not hold with this version of taut ({error}): mend them and apply them "
                    "in an emergency, `taut break-glass start --reason ...`, which asks the built-in policies alone"
                ) from error
            self._parsed = parsed
        return parsed[1]

    def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, object]
    ) -> PolicyDecision:
        """Decide; see `Policy.decide`. In an emergency the built-in policies decide alone."""
        why = self._refusal(principal, action)
        if why is not None:
            return PolicyDecision(allow=False, reasons=(why.message,))
        return self._policy(principal).decide(principal, action, resource, context)

    def require(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, object]
    ) -> PolicyDecision:
        """Return the decision when it allows. Raises Denied with who, what and why otherwise; StepUp where a key must be
        exchanged first."""
        why = self._refusal(principal, action)
        if why is not None:
            raise why
        return self._policy(principal).require(principal, action, resource, context)

    def _refusal(self, principal: Principal, action: str) -> TautError | None:
        """Return why somebody who is contained may not act here; his key may always be exchanged for a token."""
        key = shows_key(principal) and action != OWN
        found = (refusal(one, endpoint=None, key=key) for one in self._held(principal.id))
        return next((why for why in found if why is not None), None)

    def _policy(self, principal: Principal) -> Policy:
        return self._floor if is_emergency(principal) else self.now()
