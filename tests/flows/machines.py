"""A further machine in tests: another home, whose gateways serve what the first installation releases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from installation import ORDER, Installation, Up, free_ports


@contextmanager
def joined(
    up: Up,
    folder: Path,
    *,
    name: str = "m2",
    gateways: int = 1,
    words: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Iterator[Up]:
    """Run a further machine of `up` until the block ends. name: by which it is invited."""
    folder.mkdir(exist_ok=True)
    invitation = up.installation("machine", "invite", name)["invitation"]
    machine = Installation(folder, environ={"TAUT_TOKEN": invitation, **(environ or {})})
    with machine.up(gateways=gateways, port=free_ports(), words=("--join", up.control, *words)) as there:
        yield there


def release_without_features(shop: Installation) -> None:
    """Make `late@2`, which needs nothing but the request, live at the endpoint `quick`."""
    text = (shop.folder / "project.py").read_text()
    for old, new in (
        ("    features=[load],\n", ""),
        ('"distance_km", "waiting"]', '"distance_km"]'),
        (', taut.no_regression("auc", tolerance=0.02)', ""),
        ("minimum=0.65", "minimum=0.5"),
        ('"trees": 60', '"trees": 5'),
    ):
        assert old in text, old
        text = text.replace(old, new)
    shop.write("project.py", text + 'quick = taut.Endpoint("quick", model=train, release=taut.Direct())\n')
    shop("apply")
    assert shop("train", "late")["verdict"] == "admit"
    shop("model", "approve", "late@2")
    assert shop("release", "start", "quick", "2")["state"] == "live"


def ask(up: Up, bearer: str) -> httpx.Response:
    return httpx.post(
        f"{up.data}/v1/predict/quick", json={"instances": [ORDER]},
        headers={"authorization": f"Bearer {bearer}"}, timeout=60.0,
    )  # fmt: skip
