"""Whether the workers of a service can share an index."""

from pathlib import Path

from contract.errors import SettingsError


def require_shareable(directory: Path, workers: int) -> None:
    """Raises SettingsError where only one process can use the index of the bundle in `directory`
    and there are more."""
    if workers == 1:
        return
    # A supervisor of one worker, who has nobody to share with, does without numpy.
    from contract.index import hosted

    if found := hosted(directory):
        backend, path = found
        if why := backend.exclusive(path):
            raise SettingsError(f"--workers {workers}: {why}, or serve with one worker")
