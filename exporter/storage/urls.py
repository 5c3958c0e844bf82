"""URLs of storage: which ones there are, and how they are shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from exporter.errors import UsageError, first_line

# Scheme -> the package that reads it; "file" needs none.
SCHEMES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "https": "aiohttp",
    "http": "aiohttp",
    "file": "",
}
READ_ONLY = ("https", "http")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_HIDDEN = re.compile(r"(?<=://)[^/@\s]*@|(?<=[?])[^\s'\"]*")  # a user with a password; a query
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|_KEY|SAS|CONNECTION_STRING", re.IGNORECASE)
_SHORTEST_SECRET = 6


class UrlPath(type(Path())):  # type: ignore[misc]  # the class of paths of this system
    """The local path of something that has a URL.

    Attributes:
        url: without secrets, for reports and messages.
    """

    url: str = ""


def url_path(path: Path, url: str) -> UrlPath:
    """The local path of a URL."""
    result = UrlPath(path)
    result.url = redact(url)
    return result


def scheme_of(text: object) -> str:
    """The scheme of a URL that can be read; "" for a path."""
    match = _URL.match(text) if isinstance(text, str) else None
    return match[1].lower() if match and match[1].lower() in SCHEMES else ""


def local_path(source: Any) -> Any:
    """The local path of a source: a URL is read; a path, or a live model, is returned.

    Raises:
        UsageError: see `exporter.storage.fetch`.
    """
    if not isinstance(source, str):
        return source
    if not scheme_of(source):
        return Path(source)
    from exporter.storage.fetch import fetch

    return fetch(source)


def with_local_references(spec: Any) -> Any:
    """A selection, or several, in which @URL is the local copy: @PATH (raises UsageError)."""
    if isinstance(spec, str):
        return _REFERENCE.sub(lambda m: f"{m[1]}@{_quoted(str(local_path(m[3])))}", spec)
    if isinstance(spec, Mapping):
        return {name: with_local_references(each) for name, each in spec.items()}
    if type(spec) in {tuple, list} and set(map(type, spec)) != {int}:  # a million units are quick
        return type(spec)(with_local_references(each) for each in spec)
    return spec


_REFERENCE = re.compile(
    rf"""((?:^|,)\s*)@(['"]?)((?:{"|".join(SCHEMES)})://[^,'"\s]+)\2""", re.IGNORECASE
)


def _quoted(path: str) -> str:
    return f"'{path}'" if "," in path or path != path.strip() else path


def local_file(url: str) -> Path:
    """The path of a file:// URL."""
    return Path(unquote(urlsplit(url).path))


def redact(text: str) -> str:
    """A text without passwords and queries of URLs, and without secrets of the environment."""
    text = _HIDDEN.sub("***", text)
    for name, value in os.environ.items():
        if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text


def filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it. Credentials are those of the environment.

    Raises:
        UsageError: the package for this scheme is not installed.
    """
    package = SCHEMES[scheme_of(url)]
    try:
        import fsspec

        __import__(package)
        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        name = "unit-exporter[storage]" if error.name == "fsspec" else package
        raise UsageError(
            f"{scheme_of(url)}:// needs {error.name or package}, which is not installed",
            f"install it: pip install {name}",
        ) from error
    return system, str(path).rstrip("/")


def reason_of(error: BaseException) -> str:
    """What a library of storage said, without secrets."""
    return redact(f"{type(error).__name__}: {first_line(error)}")[:300]
