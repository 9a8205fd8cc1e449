"""A hub that is a web address: any server of static files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from zoo._version import __version__
from zoo.errors import UserError
from zoo.hub._base import CorruptTransfer, Hub, Interrupted, RetryPolicy, Stream

CHUNK = 2**16
REDIRECTS = 5
TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""HTTP status codes after which a retry may succeed."""


class WebHub(Hub):
    """A folder behind http:// or https://."""

    def __init__(self, address: str, patience: RetryPolicy | None = None) -> None:
        super().__init__(address, patience)
        self._folder = address.rstrip("/")

    def url(self, path: str) -> str:
        """Return the address of a file."""
        return f"{self._folder}/{quote(path)}"

    def headers(self) -> dict[str, str]:
        """Return further headers, such as a token."""
        return {}

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        """Request a file, or its rest if there is an offset."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"robust-zoo/{__version__}", **self.headers()}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with requests.Session() as session:
            try:
                response = self._follow(session, self.url(path), headers)
            except requests.exceptions.InvalidProxyURL as error:
                raise UserError(f"the proxy of this machine cannot be used for {self.address}: {error}") from None
            except requests.exceptions.InvalidURL as error:
                words = str(error).replace(self._folder, self.address.rstrip("/"))
                raise UserError(f"{self.address} is not an address: {words}") from None
            except requests.RequestException as error:
                raise Interrupted(_reason(error)) from None
            except ValueError as error:  # of urlsplit
                raise UserError(
                    f"{self.address} is not an address, or redirects to something that is not: {error}"
                ) from None
            with response:
                self._check(response, path)
                start = _start(response, offset)
                declared = response.headers.get("Content-Length", "")
                yield Stream(start, int(declared) if declared.isdecimal() else None, _chunks(response))

    def _follow(self, session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
        """Follow redirects that keep the scheme; credentials are sent only to the first host."""
        scheme, host = urlsplit(url).scheme, urlsplit(url).netloc
        own = host.rpartition("@")[2]
        for _ in range(REDIRECTS + 1):
            response = session.get(
                url,
                headers=headers,
                auth=_given_credentials(url, headers),
                stream=True,
                allow_redirects=False,
                timeout=self.patience.timeout,
            )
            if not response.is_redirect:
                return response
            response.close()
            url = urljoin(url, response.headers["Location"])
            if urlsplit(url).scheme != scheme:
                raise UserError(f"{self.address} redirects from {scheme} to {url}: another scheme is not followed")
            if urlsplit(url).netloc == own:
                url = urlsplit(url)._replace(netloc=host).geturl()  # includes the password, which is for this host only
            elif urlsplit(url).netloc != host:
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        raise UserError(f"{self.address} redirects more than {REDIRECTS} times")

    def _check(self, response: requests.Response, path: str) -> None:
        status = response.status_code
        if status in TRY_AGAIN:
            raise Interrupted(f"the server answers {status} {response.reason}")
        if status == 416:
            raise CorruptTransfer("the file on the server has become shorter")
        if status in (401, 403):
            raise UserError(f"{self.address} refuses {path} ({status} {response.reason}): are you logged in?")
        if status not in (200, 206):
            raise UserError(f"{self.address} has no {path} ({status} {response.reason})")
        if "html" in response.headers.get("Content-Type", "") and not path.endswith(".html"):
            raise CorruptTransfer("the server sends a web page instead of the file")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            encoding = response.headers["Content-Encoding"]
            raise UserError(
                f"{self.address} sends {path} as {encoding}, though asked for the file as it is: turn compression off "
                "at the server"
            )


class _AsGiven(requests.auth.AuthBase):
    """Leaves a request with the ``Authorization`` that it has."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _given_credentials(url: str, headers: dict[str, str]) -> requests.auth.AuthBase | None:
    """Return what the user gave to authenticate with; None: nothing.

    Without it requests would look into ~/.netrc first, which is for git and whatever else uses that host.
    """
    if any(name.lower() == "authorization" for name in headers):
        return _AsGiven()
    address = urlsplit(url)
    if address.username is None:
        return None
    return requests.auth.HTTPBasicAuth(unquote(address.username), unquote(address.password or ""))


def _start(response: requests.Response, asked: int) -> int:
    """Return the offset of the answer: servers without ranges send the whole file."""
    if response.status_code == 200:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != asked:
        raise CorruptTransfer("the server sends another range than was asked for")
    return asked


def _chunks(response: requests.Response) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.raw.read1(CHUNK, decode_content=False)
        except (HTTPError, OSError) as error:
            raise Interrupted(_reason(error)) from None
        if not chunk:
            return
        yield chunk


def _reason(error: Exception) -> str:
    """Describe a failed transfer in a few words."""
    text = str(error)
    for sign, words in (
        ("timed out", "no answer in time"),
        ("NameResolution", "no such host"),
        ("refused", "connection refused"),
        ("IncompleteRead", "connection lost"),
        ("reset by peer", "connection lost"),
        ("without response", "connection lost"),
        ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is not trusted"),
    ):
        if sign in text:
            return words
    return type(error).__name__
