"""A hub that is a repository on the Hugging Face Hub: hf://ORG/REPO, or hf://ORG/REPO@REVISION."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from zoo.errors import UserError
from zoo.hub._base import Patience
from zoo.hub.download import read_index
from zoo.hub.index import INDEX, Entry, Index
from zoo.hub.web import WebHub


class HuggingFaceHub(WebHub):
    """Files are fetched like those of any web server, from the addresses and with the token of huggingface_hub."""

    def __init__(self, address: str, patience: Patience | None = None) -> None:
        super().__init__(address, patience)
        self.repository, _, revision = address.removeprefix("hf://").strip("/").partition("@")
        self.revision = revision or "main"
        if self.repository.count("/") != 1:
            raise UserError(f"{address} names no repository: write hf://ORG/REPO")

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
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            has_index = HfApi().file_exists(self.repository, INDEX, revision=self.revision)
        except RepositoryNotFoundError:
            raise self._not_found() from None
        return read_index(self) if has_index else Index()

    def _not_found(self) -> UserError:
        return UserError(f"{self.address} does not exist or is not yours: `hf repo create`, `hf auth login`")

    def add(self, name: str, entry: Entry, build: Callable[[Path], object]) -> None:
        """Publish by one commit on top of the one whose index was read: if another came between, nothing changes."""
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        api = HfApi()
        try:
            head = api.model_info(self.repository, revision=self.revision)
            has_index = INDEX in {file.rfilename for file in head.siblings or ()}
            index = (read_index(self) if has_index else Index()).with_model(name, entry, self.address)
            with tempfile.TemporaryDirectory() as folder:
                build(Path(folder))
                files = [CommitOperationAdd(f"{name}/{file}", Path(folder) / file) for file in entry.files]
                api.create_commit(
                    self.repository,
                    [*files, CommitOperationAdd(INDEX, index.to_json())],
                    commit_message=f"Add {name}",
                    revision=self.revision,
                    parent_commit=head.sha,
                )
        except RepositoryNotFoundError:
            raise self._not_found() from None
        except HfHubHTTPError as error:
            raise UserError(f"{self.address} did not take {name} ({error}): nothing was published") from None
