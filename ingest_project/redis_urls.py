"""Addresses of the databases of one Redis server."""

from urllib.parse import urlsplit, urlunsplit


def next_database(url: str, *, steps: int) -> str:
    """Return the address of the database that lies `steps` after the one a Redis address names (0 without one)."""
    address = urlsplit(url)
    number = address.path.strip("/")
    return urlunsplit(address._replace(path=f"/{(int(number) if number.isdigit() else 0) + steps}"))
