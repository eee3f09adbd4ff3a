"""Checks the types in the page's comments: ``make dev-page`` && ``make types``.

TypeScript is a native program. npm downloads it, but node is not needed to run it. The check runs
on a copy of the page, where the libraries' type files replace their code.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.page.vendor import LIST, PAGE, tarball

FOLDER = Path(__file__).parents[2] / ".page-types"
TYPESCRIPT = ("@typescript/typescript-linux-x64", "7.0.2")
TYPES = {
    "preact.d.mts": "preact/src/index.d.ts",
    "hooks.d.mts": "preact/hooks/src/index.d.ts",
    "signals-core.d.mts": "signals-core/dist/signals-core.d.ts",
    "signals.d.mts": "signals/dist/signals.d.ts",
    "marked.d.mts": "marked/lib/marked.d.ts",
}
UNTYPED = {
    "htm.d.mts": "declare const htm: any; export default htm;",
    "purify.d.ts": "export {};",
}
OPTIONS = {
    "target": "es2022",
    "module": "esnext",
    "moduleResolution": "bundler",
    "checkJs": True,
    "allowJs": True,
    "strict": True,
    "noEmit": True,
    "skipLibCheck": True,
    "lib": ["es2023", "dom", "dom.iterable", "dom.asynciterable"],
    "types": [],
    "paths": {
        "preact": ["./packages/preact/src/index.d.ts"],
        "preact/hooks": ["./packages/preact/hooks/src/index.d.ts"],
        "@preact/signals-core": ["./packages/signals-core/dist/signals-core.d.ts"],
    },
}


def fetch() -> None:
    """Fetch TypeScript and the libraries' types: ``make dev-page``."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    _unpack(*TYPESCRIPT, FOLDER / "typescript")
    for entry in json.loads(LIST.read_text()):
        name = entry["package"].rpartition("/")[2]
        _unpack(entry["package"], entry["version"], FOLDER / "packages" / name)


def _unpack(package: str, version: str, folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(tarball(package, version))) as archive:
        for member in archive.getmembers():
            member.path = member.path.partition("/")[2]
            archive.extract(member, folder, filter="data")


def check() -> int:
    """Check the types in a copy of the page; return the exit status."""
    program = next((FOLDER / "typescript").rglob("tsc"), None)
    if program is None:
        print("The types of the page are not checked: make dev-page fetches what that needs")
        return 0
    copy = FOLDER / "page"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(PAGE, copy, ignore=shutil.ignore_patterns("vendor"))
    (copy / "vendor").mkdir()
    for name, source in TYPES.items():
        module = f"../../packages/{source.removesuffix('.d.ts')}"
        (copy / "vendor" / name).write_text(f'export * from "{module}";\n')
    for name, text in UNTYPED.items():
        (copy / "vendor" / name).write_text(text)
    config = {"compilerOptions": OPTIONS, "include": ["page/**/*.js"]}
    (FOLDER / "tsconfig.json").write_text(json.dumps(config))
    return subprocess.run([program, "-p", FOLDER / "tsconfig.json"], check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["fetch"]:
        fetch()
    else:
        sys.exit(check())
