from __future__ import annotations

import pytest

from tests.helm.chart import CASES, TOOLS, Rendered, Values, render


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    if not (TOOLS / "stamp").exists():
        pytest.fail("helm and kubeconform are not built yet; run: make test-helm")


@pytest.fixture(params=CASES, ids=str, scope="session")
def values(request: pytest.FixtureRequest) -> Values:
    return CASES[request.param]


@pytest.fixture(scope="session")
def rendered(values: Values, tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return render(values, work=tmp_path_factory.mktemp("values"))
