"""The clients, from a configuration and its credentials."""

from __future__ import annotations

from pathlib import Path

from cterafs.config import Config, DirectCredentials, PortalCredentials, Secret
from cterafs.direct.client import DirectIO
from cterafs.downloading.messages import Settings
from cterafs.portal import Portal


def portal_client(config: Config, credentials: PortalCredentials) -> Portal:
    """The control plane's client; it logs in upon its first request.

    Raises:
        ConfigError: an option cannot be used.
    """
    return Portal(
        config.portal.url,
        context=config.portal.context,
        username=credentials.username or None,
        password=_reveal(credentials.password),
        token=_reveal(credentials.token),
        verify_tls=config.portal.verify_tls,
        ca_file=_text(config.portal.ca_file),
    )


def direct_client(config: Config, credentials: DirectCredentials) -> DirectIO:
    """The data plane's client.

    Raises:
        ConfigError: an option cannot be used.
    """
    return DirectIO(
        config.portal.url,
        credentials.access_key_id or None,
        _reveal(credentials.secret_access_key),
        bearer=_reveal(credentials.bearer),
        verify_tls=config.portal.verify_tls,
        ca_file=_text(config.portal.ca_file),
        storage_verify_tls=config.direct.verify_tls,
        storage_ca_file=_text(config.direct.ca_file),
        storage_hosts=config.direct.storage_hosts,
        workers=config.direct.workers,
        timeout=config.direct.timeout,
    )


def download_settings(config: Config) -> Settings:
    """How a process that only downloads does it. It gets none of the credentials."""
    return Settings(
        portal_url=config.portal.url,
        hosts=tuple(config.direct.storage_hosts),
        verify_tls=config.direct.verify_tls,
        ca_file=_text(config.direct.ca_file),
        workers=config.direct.workers,
        timeout=config.direct.timeout,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
