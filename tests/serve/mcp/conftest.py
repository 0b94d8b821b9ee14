"""The service of two teams, here too."""

from tests.serve.access.conftest import keys_file, secrets, teams_index

__all__ = ["keys_file", "secrets", "teams_index"]
