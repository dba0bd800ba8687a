"""`cterafs mount`: mounts the global file system."""

from __future__ import annotations

import argparse
from pathlib import Path

from cterafs.cli import settings


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "mount",
        help="mount the global file system",
        description="Mounts the global file system, read-only. Without -f, goes to the background and returns when "
        "the mount answers. The first mount imports the namespace before that, unless --no-wait is given.",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("--no-wait", action="store_true", help="mount at once; the tree fills in as it is imported")
    parser.add_argument("mountpoint", type=Path, metavar="MOUNTPOINT")
    settings.add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from cterafs import config as configuration
    from cterafs import control
    from cterafs.app import Credentials
    from cterafs.cli import daemon
    from cterafs.kernel import mountpoint

    config, environment = settings.load_for_portal(args)
    credentials = Credentials(
        configuration.portal_credentials(config.portal, environment),
        configuration.direct_credentials(config.direct, environment),
    )
    path = mountpoint.absolute(args.mountpoint)
    record = control.find(path)
    mountpoint.prepare(path, None if record is None else control.serving(record))  # before the state is touched
    if args.foreground:
        return daemon.mount(config, credentials, path, wait=not args.no_wait, ready=lambda: None)
    daemon.log_to_file(config, verbose=args.verbose)
    return daemon.detach(lambda ready: daemon.mount(config, credentials, path, wait=not args.no_wait, ready=ready))
