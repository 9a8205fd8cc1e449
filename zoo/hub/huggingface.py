"""A hub that is a repository on the Hugging Face Hub: hf://ORG/REPO, or hf://ORG/REPO@REVISION."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import UserError
from zoo.hub._base import RetryPolicy
from zoo.hub.download import read_index
from zoo.hub.index import INDEX, Entry, Index
from zoo.hub.web import WebHub


class HuggingFaceHub(WebHub):
    """Files are fetched like those of any web server, from the addresses and with the token of huggingface_hub."""

    def __init__(self, address: str, patience: RetryPolicy | None = None) -> None:
        super().__init__(address, patience)
        self.repository, _, revision = address.removeprefix("hf://").strip("/").partition("@")
        self.revision = revision or "main"
        if self.repository.count("/") != 1:
            raise UserError(f"{address} names no repository: write hf://ORG/REPO")
        try:
            self.url(INDEX)
        except ValueError as error:
            raise UserError(f"{address} names no repository: {error}") from None

    def url(self, path: str) -> str:
        """Return the address of a file in the repository."""
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repository, path, revision=self.revision)

    def headers(self) -> dict[str, str]:
        """Return the user's token, if there is one."""
        from huggingface_hub.utils._headers import build_hf_headers

        return build_hf_headers(library_name="robust-zoo")

    def current_index(self) -> Index:
        """Return the repository's index, empty if it has none."""
        return self._head()[1]

    def _head(self) -> tuple[str, Index]:
        """Return the revision's commit, and the index that this very commit has."""
        from huggingface_hub import HfApi

        with self._explained():
            head = HfApi().model_info(self.repository, revision=self.revision)
        has_index = INDEX in {file.rfilename for file in head.siblings or ()}
        at_head = HuggingFaceHub(f"hf://{self.repository}@{head.sha}", self.patience)
        return str(head.sha), read_index(at_head) if has_index else Index()

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Publish by one commit on top of the one whose index was read: if another came between, nothing changes."""
        from huggingface_hub import CommitOperationAdd, HfApi

        commit, index = self._head()
        index = index.with_model(name, entry, self.address)
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder))
            files = [CommitOperationAdd(f"{name}/{file}", Path(folder) / file) for file in entry.files]
            with self._explained():
                HfApi().create_commit(
                    self.repository,
                    [*files, CommitOperationAdd(INDEX, index.to_json())],
                    commit_message=f"Add {name}",
                    revision=self.revision,
                    parent_commit=commit,
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Report in one line why the Hugging Face Hub refused a request."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            yield
        except RepositoryNotFoundError:
            raise UserError(
                f"{self.address} does not exist or is not yours: `hf repo create`, `hf auth login`"
            ) from None
        except Exception as error:  # without a class in common: the library's HTTP client changes with its versions
            reason = str(error) or type(error).__name__
            raise UserError(f"{self.address} gave an unexpected answer ({reason}): nothing was published") from None
