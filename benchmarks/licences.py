"""Lists what the package needs, directly or not: version, licence, and whether constraints.txt pins it.

    python benchmarks/licences.py

Writes `docs/licences.md`, from the metadata of what is installed here. Known vulnerabilities are for `make audit`
(pip-audit), which asks a database on the net.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
# Under these nobody who uses or changes the package must publish anything; MPL binds the changed files alone.
PERMISSIVE = re.compile(
    r"MIT|Apache|BSD|ISC|PSF|Python Software Foundation|Zlib|CC0|MPL|Mozilla Public|HPND|Unlicense|CNRI|BSL-1\.0"
)
COPYLEFT = re.compile(r"\bA?L?GPL|General Public License", re.IGNORECASE)


def needed(name: str = "spanelectra") -> dict[str, Distribution]:
    """Every installed distribution that ``name`` needs to run, without extras of its own, by canonical name."""
    found: dict[str, Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset())]
    seen = set()
    while waiting:
        current, extras = waiting.pop()
        if (current, extras) in seen:
            continue
        seen.add((current, extras))
        try:
            found[canonicalize_name(current)] = distribution(current)
        except PackageNotFoundError:  # for another platform
            continue
        for text in found[canonicalize_name(current)].requires or ():
            requirement = Requirement(text)
            environments = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if requirement.marker is None or any(requirement.marker.evaluate(extra) for extra in environments):
                waiting.append((requirement.name, frozenset(requirement.extras)))
    found.pop(canonicalize_name(name), None)
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """A distribution's licence as its metadata names it."""
    metadata = package.metadata
    classifiers = [
        line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or () if line.startswith("License")
    ]
    texts = [metadata.get("License-Expression"), ", ".join(classifiers), metadata.get("License")]
    text = next((text for text in texts if text and text not in ("UNKNOWN", "OSI Approved")), "unknown")
    return text.strip().splitlines()[0][:120]


def pins() -> dict[str, set[str]]:
    """Canonical name -> the exact versions that constraints.txt allows on this Python."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate():
                continue
            (pin,) = requirement.specifier
            assert pin.operator == "==", line
            versions.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return versions


def main() -> None:
    packages, pinned = needed(), pins()
    lines = [
        "# What the package needs, and under which licences",
        "",
        "Written by `python benchmarks/licences.py` from the metadata of the installed distributions: everything that",
        "`pip install spanelectra` brings, development tools aside. All of it may be used, changed and passed on",
        "freely; MPL asks that changes to its own files stay open.",
        "",
        "| package | version | licence | pinned |",
        "|---|---|---|---|",
    ]
    for name, package in packages.items():
        is_pinned = package.version.split("+")[0] in {version.split("+")[0] for version in pinned.get(name, ())}
        lines.append(f"| {name} | {package.version} | {licence(package)} | {'yes' if is_pinned else 'no'} |")
    (ROOT / "docs" / "licences.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(packages)} packages")


if __name__ == "__main__":
    main()
