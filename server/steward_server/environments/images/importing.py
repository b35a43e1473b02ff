"""Brings an image into a data folder, whether a server runs on it or not."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from steward_server.environments.driver import Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.images.image import Image


def import_file(data_dir: Path, archive: Path, name: str = "") -> Image:
    """Take an image from an archive into the catalogue of a data folder.

    Raises:
        FileNotFoundError: there is no such folder.
        PermissionError: it is another user's, whose server could not use what is put there.
        ValueError: the archive or the name cannot be used.
    """
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(data_dir)!r}; name the server's with --data-dir"
        )
    owner = data_dir.stat().st_uid
    if owner != os.geteuid():
        raise PermissionError(
            f"the folder {str(data_dir)!r} belongs to user {owner}, and you are user "
            f"{os.geteuid()}; import the image as the user who runs the server"
        )
    try:
        return asyncio.run(Catalogue(data_dir / "images").import_archive(archive, name=name))
    except Unusable as error:
        raise ValueError(str(error)) from error
