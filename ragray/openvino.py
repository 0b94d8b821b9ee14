"""OpenVINO's packages. In: the name of one. Out: it, imported without telemetry."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ragray.errors import MissingPackageError, first_line


def import_openvino(setting: str, package: str = "openvino") -> Any:
    """Import a package of OpenVINO without its telemetry, which sends a report at every import unless the user has opted out.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported; the message names the ``setting`` that asks for it.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # OpenVINO then takes its own stub
    try:
        return importlib.import_module(package)
    except ImportError as err:
        wheel = package.replace("_", "-")
        raise MissingPackageError(
            f"{setting}: {wheel} cannot be imported ({first_line(err)}); run: pip install {wheel}"
        ) from err
