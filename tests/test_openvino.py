"""OpenVINO's packages: imported without telemetry, or one line that says which setting asks for what."""

import subprocess
import sys

import pytest

from ragray.errors import MissingPackageError
from ragray.openvino import import_openvino


def test_a_package_that_is_missing_is_named_with_the_setting_that_asks_for_it() -> None:
    with pytest.raises(
        MissingPackageError, match=r"^a\.b=c: openvino-nothing cannot be imported .*: pip install openvino-nothing$"
    ):
        import_openvino("a.b=c", "openvino_nothing")


def test_telemetry_is_not_imported() -> None:
    code = (
        "import sys; from ragray.openvino import import_openvino as o; o('a'); print(sys.modules['openvino_telemetry'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("None\n", 0), done.stderr
