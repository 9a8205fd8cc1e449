"""Download one size of a nested network: the beginning of its file, and nothing more."""

from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.errors import UserError
from zoo.files import atomic_folder
from zoo.hub.download import download
from zoo.hub.index import FileEntry
from zoo.hub.search import Found
from zoo.lowrank.shells import merge_shells
from zoo.nested.stored import choose_prefix, write_size
from zoo.runs.card import Card
from zoo.runs.ordered_file import read_beginning


def download_size(found: Found, compression: float, target: Path) -> tuple[Path, int]:
    """Download a size of a nested network and write it as a run of that size alone.

    Only the card and the beginning of the weights are fetched; the card, which the index vouches for, has the
    beginning's SHA-256.

    Args:
        found: the model.
        compression: of a stored size.
        target: the folder to write; it must not exist.

    Returns:
        The folder, and the bytes of weights that were fetched.

    Raises:
        UserError: the model is not stored by sizes or not at this one, the folder is there, or the download fails.
    """
    card = Card.load(found.card_file())
    prefix = choose_prefix(card, found.name, compression)
    if target.exists():
        raise UserError(f"{target} is there already: remove it, or choose another folder with --to")
    wanted = FileEntry(sha256=prefix.sha256, bytes=prefix.bytes)
    with TemporaryDirectory() as folder, atomic_folder(target) as staging:
        part = Path(folder) / "beginning"
        download(found.hub, f"{found.name}/{card.weights.file}", wanted, part, whole=False)
        write_size(card, prefix.compression, merge_shells(read_beginning(part)), staging)
    return target, prefix.bytes
