"""The configuration: every option and number that can be set, in one place.

`load` reads it from the file, the environment and the mount options, in this order of increasing weight. Secrets in
it are `Secret` objects, and those that lie in a file or come from a command are fetched by `portal_credentials` and
`direct_credentials`, when they are needed. Nothing but the command line's code reads the environment.
"""

from cterafs.config.credentials import (
    DirectCredentials,
    PortalCredentials,
    direct_credentials,
    portal_credentials,
    strip_secrets,
    without_secrets,
)
from cterafs.config.loading import load, require, state_directory
from cterafs.config.options import (
    OPTIONS,
    CacheConfig,
    Config,
    DirectConfig,
    LogConfig,
    MetricsConfig,
    MountConfig,
    Option,
    PortalConfig,
    ReadaheadConfig,
    StateConfig,
)
from cterafs.config.values import Address, Reserve, Secret

__all__ = [
    "OPTIONS",
    "Address",
    "CacheConfig",
    "Config",
    "DirectConfig",
    "DirectCredentials",
    "LogConfig",
    "MetricsConfig",
    "MountConfig",
    "Option",
    "PortalConfig",
    "PortalCredentials",
    "ReadaheadConfig",
    "Reserve",
    "Secret",
    "StateConfig",
    "direct_credentials",
    "load",
    "portal_credentials",
    "require",
    "state_directory",
    "strip_secrets",
    "without_secrets",
]
