"""The runner that is sent to devices: the modules of `exporter.ondevice` in one archive."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

import exporter

_ROOT = Path(exporter.__file__).parent
_DATE = (1980, 1, 1, 0, 0, 0)
_MAIN = """\
from exporter.ondevice.serve import refuse_all
try:
    from exporter.ondevice.worker import main
except ImportError as error:
    refuse_all({"missing": error.name or "", "reason": str(error)})
else:
    main()
"""


def bootstrap() -> bytes:
    """The source of the first part, which needs only Python."""
    return (_ROOT / "ondevice" / "serve.py").read_bytes()


@cache
def archive() -> bytes:
    """The archive: it imports NumPy and a runtime, and nothing else of this package."""
    files = {"__main__.py": _MAIN.encode(), "exporter/__init__.py": b""}
    for path in (_ROOT / "errors.py", *sorted((_ROOT / "ondevice").glob("*.py"))):
        files[f"exporter/{path.relative_to(_ROOT).as_posix()}"] = path.read_bytes()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        for name, source in files.items():
            made.writestr(zipfile.ZipInfo(name, _DATE), source, zipfile.ZIP_DEFLATED)
    return content.getvalue()
