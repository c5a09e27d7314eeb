"""What every Secrets adapter must do. Subclass in a test module and give `open`, `raw` and `damage`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.ports.secrets import Secrets

# examples may share a folder, and the same suite runs once for each adapter: both are meant
_FRESH = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
_VALUE = "correct horse battery staple"


class SecretsSuite(ABC):
    """The suite. `folder` names a store, so that it can be opened again."""

    @abstractmethod
    def open(self, folder: Path) -> Secrets:
        """Open the store that belongs to `folder`, empty at first; the same one for the same folder."""

    @abstractmethod
    def raw(self, folder: Path) -> bytes:
        """Return every byte that the store keeps at rest."""

    @abstractmethod
    def damage(self, folder: Path, name: str, *, instead: str | None = None) -> None:
        """Flip one bit of a stored secret, or put the stored form of `instead` in its place."""

    @_FRESH
    @given(value=st.text(max_size=2000))
    def test_a_value_comes_back_also_from_another_opening(self, tmp_path: Path, value: str) -> None:
        self.open(tmp_path).put("db/password", value)
        assert self.open(tmp_path).get("db/password") == value

    def test_a_second_put_replaces_the_value(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        secrets.put("a", "one")
        secrets.put("a", "two")
        assert secrets.get("a") == "two"
        assert secrets.names() == ("a",)

    def test_names_are_listed_in_order_and_values_nowhere(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        for name in ("z", "a/b", "a-b"):
            secrets.put(name, _VALUE)
        assert secrets.names() == ("a-b", "a/b", "z")
        assert _VALUE.encode() not in self.raw(tmp_path)

    def test_a_deleted_secret_is_gone(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        secrets.put("a", _VALUE)
        secrets.delete("a")
        assert secrets.names() == ()
        for ask in (secrets.get, secrets.delete):
            with pytest.raises(NotFound, match="a"):
                ask("a")

    def test_a_changed_or_swapped_secret_is_corrupt_and_its_value_not_told(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        secrets.put("a", _VALUE)
        secrets.put("b", "other")
        self.damage(tmp_path, "b", instead="a")
        with pytest.raises(Corrupt, match="secret b") as swapped:
            secrets.get("b")
        self.damage(tmp_path, "a")
        with pytest.raises(Corrupt, match="secret a") as changed:
            secrets.get("a")
        for error in (swapped.value, changed.value):
            assert _VALUE not in f"{error}{error.__cause__}"
        secrets.put("a", "mended")
        assert secrets.get("a") == "mended"

    def test_what_is_wrapped_anew_reads_as_before(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        assert secrets.rewrap() == 0
        secrets.put("a", "one")
        secrets.put("b/c", "two")
        assert secrets.rewrap() == 2
        for opened in (secrets, self.open(tmp_path)):
            assert (opened.get("a"), opened.get("b/c"), opened.names()) == ("one", "two", ("a", "b/c"))

    @pytest.mark.parametrize(
        "name", ["", "/", "/a", "a/", "a//b", "..", "../a", "A", "a b", "a.b", "a+b", "é", "a" * 201]
    )
    def test_what_is_no_name_is_refused(self, tmp_path: Path, name: str) -> None:
        secrets = self.open(tmp_path)
        with pytest.raises(InvalidInput):
            secrets.put(name, "x")
        with pytest.raises(InvalidInput):
            secrets.get(name)
        assert secrets.names() == ()

    def test_a_value_above_the_bound_is_refused_without_being_told(self, tmp_path: Path) -> None:
        secrets = self.open(tmp_path)
        secrets.put("large", "x" * 65_536)
        with pytest.raises(InvalidInput, match="65537") as refused:
            secrets.put("large", "y" * 65_537)
        assert "yyy" not in str(refused.value)
        assert secrets.get("large") == "x" * 65_536
