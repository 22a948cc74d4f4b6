"""Every way to install raysys brings exactly one FAISS wheel, and the image has what its parts need at run time.

pip and uv resolve against wheels without content, one for each requirement, so that no network is needed.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from raysys.errors import InputError, known_cause

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINNED = {
    Requirement(line).name.lower().replace("_", "-"): str(Requirement(line).specifier).removeprefix("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
}
WHEELS_OF_FAISS = {"faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cuvs"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty wheel of raysys and of each of its requirements, in the version of constraints.txt."""
    folder = tmp_path_factory.mktemp("wheels")
    required = [Requirement(text) for text in itertools.chain(PROJECT["dependencies"], *EXTRAS.values())]
    for requirement in required:
        name = requirement.name.lower()
        write_wheel(
            folder,
            name,
            PINNED[name.replace("_", "-")],
            [f"Provides-Extra: {extra}" for extra in requirement.extras],
        )
    metadata = [f"Requires-Dist: {text}" for text in PROJECT["dependencies"]]
    for extra, texts in EXTRAS.items():
        metadata += [
            f"Provides-Extra: {extra}",
            *(f'Requires-Dist: {text}; extra == "{extra}"' for text in texts),
        ]
    write_wheel(folder, "raysys", "1.0", metadata)
    return folder


def write_wheel(folder: Path, name: str, version: str, metadata: list[str]) -> None:
    name = name.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{info}/METADATA",
            "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *metadata, ""]),
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")


def resolved_by_pip(wheels: Path, requirement: str) -> set[str]:
    command = [
        sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--no-index",
        "--find-links", str(wheels), "--constraint", str(ROOT / "constraints.txt"), "--report", "-", requirement,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {package["metadata"]["name"].replace("_", "-") for package in json.loads(done.stdout)["install"]}


def resolved_by_uv(wheels: Path, requirement: str) -> set[str]:
    command = [
        sys.executable, "-m", "uv", "pip", "compile", "-", "--quiet", "--no-index", "--no-header", "--no-annotate",
        "--find-links", str(wheels), "--constraint", str(ROOT / "constraints.txt"), "--no-config", "--no-cache",
    ]  # fmt: skip
    done = subprocess.run(command, input=requirement, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {line.partition("==")[0] for line in done.stdout.splitlines() if "==" in line}


@pytest.mark.parametrize("resolved_by", [resolved_by_pip, resolved_by_uv])
@pytest.mark.parametrize(
    ("extras", "expected"),
    [("cpu", "faiss-cpu"), ("gpu", "faiss-gpu"), ("cpu,dev", "faiss-cpu"), ("gpu,lora", "faiss-gpu")],
)
def test_exactly_one_wheel_of_faiss_is_installed(
    wheels: Path, resolved_by: Any, extras: str, expected: str
) -> None:
    installed = resolved_by(wheels, f"raysys[{extras}]")
    assert installed & WHEELS_OF_FAISS == {expected}
    assert {"raysys", "torch", "ray"} <= installed


def test_uv_refuses_both_wheels_of_faiss(wheels: Path, tmp_path: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    # A fixed version: to find the true one, uv would need the build backend from the network.
    (tmp_path / "pyproject.toml").write_text(
        text.replace('dynamic = ["version"]', 'version = "1.0"'), encoding="utf-8"
    )
    command = [
        sys.executable, "-m", "uv", "sync", "--dry-run", "--no-index", "--no-cache", "--find-links", str(wheels),
        "--no-install-project", "--extra", "cpu", "--extra", "gpu",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search(r"Extras `cpu` and `gpu` are incompatible", done.stderr), done.stderr


def test_makefile_and_image_choose_a_wheel_of_faiss() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r'--editable "?\.(\[[\w,]+\])?', makefile) == ["[cpu]", "[cpu,dev]"]
    assert '"/opt/raysys[gpu,postgres]"' in (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")


def test_image_has_a_compiler_for_torch_compile() -> None:
    dockerfile = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")
    packages = re.search(r"apt-get install --yes --no-install-recommends ([\w\s.+-]+?) \\", dockerfile)
    assert packages is not None
    # g++ brings gcc and the C library's headers; KubeRay needs the others.
    assert {"bash", "g++", "wget"} <= set(packages[1].split())


def test_missing_faiss_is_told_with_its_remedy() -> None:
    error = known_cause(ModuleNotFoundError("No module named 'faiss'", name="faiss"))
    assert isinstance(error, InputError)
    assert (
        str(error) == "faiss is not installed: pip install 'raysys[cpu]', or with NVIDIA GPUs 'raysys[gpu]'"
    )
    assert known_cause(ModuleNotFoundError("No module named 'os2'", name="os2")) is None
