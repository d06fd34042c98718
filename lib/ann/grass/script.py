"""What each module script does once its options are parsed and the library is found."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence

import grass.script as gs

from ann.packages import install_hint, missing_packages


def run_script(
    module: str,
    options: Mapping[str, str],
    flags: Mapping[str, bool],
    *,
    packages: Sequence[str],
    interrupted: str,
) -> None:
    """Run `module.run` and end the process: 0 if it was successful, 1 otherwise; errors as GRASS tells them.

    packages: that are needed, as `missing_packages` names them; nothing heavy is imported without them.
    interrupted: what to say of an interruption.
    """
    if missing := missing_packages(packages):
        gs.fatal(install_hint(missing))
    from ann.errors import AnnError

    run = importlib.import_module(module).run
    try:
        complete = run(options, flags)
    except AnnError as error:
        gs.fatal(str(error))
    except ModuleNotFoundError as error:  # a package that only some kinds of work need
        gs.fatal(install_hint([error.name]))
    except KeyboardInterrupt:
        gs.fatal(interrupted)
    sys.exit(0 if complete else 1)
