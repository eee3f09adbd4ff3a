"""Extracts the page's libraries from npm's tarballs; a maintainer runs ``make vendor-page``.

``vendor.json`` lists packages, versions, the hashes of the tarballs, and files. Imports become
relative, so the page needs no import map and no script in its HTML.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "proxy" / "page"
VENDOR = PAGE / "vendor"
LIST = VENDOR / "vendor.json"
IMPORTED = {
    "preact": "./preact.mjs",
    "preact/hooks": "./hooks.mjs",
    "@preact/signals-core": "./signals-core.mjs",
}
IMPORT = re.compile(r"(from|import)(\s*)([\"'])(" + "|".join(map(re.escape, IMPORTED)) + r")\3")
MAP = re.compile(r"\n?//# sourceMappingURL=\S+\s*$")


def tarball(package: str, version: str) -> bytes:
    """Return a package as the registry has it, from the registry that npm is configured to use."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return next(Path(folder).iterdir()).read_bytes()


def integrity(data: bytes) -> str:
    """Return the hash of a tarball, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def plain(text: str) -> str:
    """Return a module with relative imports and without a reference to a missing source map."""
    text = IMPORT.sub(lambda found: f'{found[1]}{found[2]}"{IMPORTED[found[4]]}"', text)
    return MAP.sub("", text).rstrip() + "\n"


def take(entry: dict[str, Any]) -> list[str]:
    """Write a package's files, store their hashes in the entry, and return its licence."""
    data = tarball(entry["package"], entry["version"])
    found = integrity(data)
    if entry.setdefault("integrity", found) != found:
        sys.exit(f"{entry['package']} {entry['version']} is not what vendor.json says: {found}")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name, source in entry["files"].items():
            member = archive.extractfile(f"package/{source}")
            assert member is not None
            text = plain(member.read().decode())
            (VENDOR / name).write_text(text)
            entry.setdefault("sha256", {})[name] = hashlib.sha256(text.encode()).hexdigest()
        licence = next(
            one for one in archive.getnames() if re.fullmatch(r"package/LICEN[CS]E(\.\w+)?", one)
        )
        member = archive.extractfile(licence)
        assert member is not None
        head = f"{entry['package']} {entry['version']} ({entry['licence']})"
        return [head, "=" * len(head), "", member.read().decode().strip(), "", ""]


def main() -> None:
    """Write all files again."""
    listed = json.loads(LIST.read_text())
    licences = [line for entry in listed for line in take(entry)]
    (VENDOR / "LICENSES").write_text("\n".join(licences))
    LIST.write_text(json.dumps(listed, indent=2) + "\n")


if __name__ == "__main__":
    main()
