"""labctl runs an electrochemistry laboratory: recipes, instruments, readings, retention.

>>> import labctl
>>> with labctl.open("sqlite:///archive.db") as lab:  # doctest: +SKIP
...     print(lab.cycles("run-1")["retention"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from labctl.archive.queries import Archive

__version__ = "0.1.0"


def open(where: str | Path) -> Archive:  # noqa: A001
    """Open an archive for reading alone: see :class:`labctl.archive.queries.Archive`.

    Args:
        where: ``sqlite:///file.db``, ``postgresql://user@host/database``, or the path of a
            ``labctl.toml``, whose archive it then is.

    Raises:
        ArchiveError: not an archive, of another schema, or it cannot be reached.
        ConfigError: a ``labctl.toml`` that is not there or does not fit.
    """
    from labctl.archive import open_archive

    if isinstance(where, str) and "://" in where:
        return open_archive(where)
    from pathlib import Path

    path = Path(where)
    if path.suffix != ".toml":
        from labctl.errors import ArchiveError

        raise ArchiveError(
            f"{str(where)!r} is neither the address of an archive nor a labctl.toml; "
            "write sqlite:///path/to/file.db or postgresql://user@host/database"
        )
    from labctl.settings import load_settings

    return open_archive(load_settings(path).archive_url)
