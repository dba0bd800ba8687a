"""The arguments that lead to a configuration, the same in every command that needs one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from cterafs import config, process
from cterafs.cli import logsetup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `-o`. `-v` comes from the main parser."""
    add_config(parser)
    parser.add_argument(
        "-o",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE,…",
        help='options of the configuration, as "section.key=value", and standard mount words',
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config` alone, where `-o` has another meaning."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration file")
    parser.set_defaults(options=[])


def load(args: argparse.Namespace) -> config.Config:
    """The configuration that the arguments ask for. Sets up logging, removes our secrets from the environment, and
    keeps others from reading them in this process.

    Raises:
        ConfigError: it cannot be accepted.
    """
    process.conceal()
    loaded = config.load(args.config, os.environ, args.options)
    config.strip_secrets(os.environ)
    logsetup.configure(loaded.log, verbose=args.verbose)
    return loaded


def load_for_portal(args: argparse.Namespace) -> tuple[config.Config, Mapping[str, str]]:
    """The same for a command that talks to the portal, with the environment for the commands that print secrets.

    Raises:
        ConfigError: it cannot be accepted, or names no portal.
    """
    environment = dict(os.environ)  # as it was: `load` strips our own secrets from it
    loaded = load(args)
    config.require(loaded, "portal.url")
    return loaded, environment
