"""All masks of a folder or a repo, by what every command takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maskhub.errors import MissingError, RemoteError
from maskhub.storage import address, folderfile, hubfile
from maskhub.storage.url import is_url, public_name


def masks_at(place: str | Path, token: str | None = None) -> list[str]:
    """The masks of a folder (by its index, or its ``.msk`` files) or of a repo on the Hub; none for what is a mask.

    Raises MissingError for a folder or repo that has none, and RemoteError.
    """
    if (repo := address.hub(place)) is not None:
        if repo.name is not None:
            return []
        ask, client = hubfile.ask, hubfile.client(token)
        info = ask(repo, client.model_info, repo.repo, revision=repo.revision)
        found = [str(replace(repo, name=name)) for name in hubfile.masks(s.rfilename for s in info.siblings or ())]
    elif (is_url(place) and not str(place).endswith("/")) or (not is_url(place) and not Path(place).is_dir()):
        return []
    else:
        try:
            found = [folderfile.join(str(place), name) for name in folderfile.names(str(place))]
        except (MissingError, RemoteError):
            if is_url(place):
                raise
            found = [str(path) for path in sorted(Path(place).glob(f"*{address.SUFFIX}"))]
    if not found:
        raise MissingError(f"{public_name(str(place))}: holds no masks", hint="Masks get there by: maskhub push.")
    return found
