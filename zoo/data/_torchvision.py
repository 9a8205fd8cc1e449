"""Open torchvision's data sets, with errors a user can act on."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

from zoo.errors import UserError, first_line


def open_torchvision(kind: str, name: str, root: Path | None, download: bool, **options: Any) -> Any:
    """Return ``torchvision.datasets.NAME(root, download=download, **options)``.

    Args:
        kind: the data set's name here, for messages.
        name: its class in `torchvision.datasets`.
        root: the folder that holds it.
        download: fetch it if it is not there.
        options: such as ``train`` or ``split``.

    Raises:
        UserError: no folder was given, the files are not there or damaged, or the download failed.
    """
    import torchvision.datasets

    if root is None:
        raise UserError(f"{kind} needs --data-dir DIR, the folder that holds it (or --download true to fetch it there)")
    if not download and not root.is_dir():
        raise UserError(f"{kind}: there is no folder {root}; correct --data-dir or add --download true")
    try:
        return getattr(torchvision.datasets, name)(str(root), download=download, **options)
    except (URLError, ConnectionError, TimeoutError) as error:
        raise UserError(f"{kind} could not be downloaded to {root}: {error}") from None
    except Exception as error:  # a damaged pickle, archive or .mat file raises whatever its reader stumbles over
        reason = first_line(error).partition(".")[0]
        raise UserError(
            f"{kind} cannot be read in {root} ({reason}): add --download true, or repair the files"
        ) from None
