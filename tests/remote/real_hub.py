"""``python -m tests.remote.real_hub``: does the real Hub do what the tests' Hub does? Needs network and a write token.

It makes a private repo of yours, ``maskhub-check-...``, pushes, pulls and lists there, looks at the answers on which
MaskHub relies, and deletes the repo. Each line of its output is one thing checked; status 1 if one was otherwise.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskhub.container.writer import save
from tests import tiny

BASE = "sentence-transformers/all-MiniLM-L6-v2"  # what the card names; nothing of it is read


def main() -> int:
    from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    user = api.whoami()["name"]
    repo = f"{user}/maskhub-check-{uuid.uuid4().hex[:8]}"
    wrong = 0

    def check(what: str, test: Callable[[], Any]) -> None:
        nonlocal wrong
        try:
            found = test()
        except Exception as error:  # whatever it is, it is what this is about
            found = False
            what += f" ({type(error).__name__}: {str(error).splitlines()[0]})"
        wrong += not found
        print(f"{'yes' if found else 'NO '}  {what}", flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = tiny.write_base(folder / "base")
        first, second = (tiny.tiny_maskset(base, seed=seed, name=BASE) for seed in (0, 1))
        save(first, folder / "a.msk")
        save(second, folder / "b.msk")

        def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
            environment = {**os.environ, "HF_HOME": name, "HF_TOKEN": api.token or _token(), **variables}
            command = [sys.executable, "-m", "maskhub_cli", *map(str, arguments)]
            return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder.parent)

        def says(text: str, *arguments: object, **variables: str) -> bool:
            ran = run(*arguments, **variables)
            return ran.returncode == 1 and text in ran.stderr and ran.stderr.count("\n") == 1

        def changed(*arguments: object) -> Any:
            return json.loads(run("push", *arguments, "--json").stdout)["changed"]

        def conflict() -> bool:
            old = api.list_repo_commits(repo)[-1].commit_id
            try:
                operation = CommitOperationAdd("x.txt", b"x")
                api.create_commit(repo, [operation], commit_message="x", parent_commit=old)
            except HfHubHTTPError as error:
                return bool(error.response.status_code == 412)
            return False

        def listed() -> bool:
            for _ in range(12):  # the Hub's index is behind its repos
                ran = run("list", "--author", user, "-q", "--limit", "1000")
                if f"{repo}/a.msk" in ran.stdout.split():
                    return True
                time.sleep(5)
            return False

        try:
            check("a push makes a private repo", lambda: changed(folder / "a.msk", repo, "--private"))
            info = api.model_info(repo, files_metadata=True)
            files = {s.rfilename: s for s in info.siblings or ()}
            check("which is private", lambda: info.private)
            check("a mask is stored as a large file, with its SHA-256", lambda: files["a.msk"].lfs)
            check(
                "the card's own key is kept", lambda: info.card_data and info.card_data["maskhub"][0]["id"] == first.id
            )
            check("the repo is tagged maskhub", lambda: "maskhub" in (info.tags or ()))
            check("and with its base", lambda: f"base_model:{BASE}" in (info.tags or ()))
            check("as an adapter of it", lambda: f"base_model:adapter:{BASE}" in (info.tags or ()))
            check("a second push changes nothing", lambda: changed(folder / "a.msk", repo) is False)
            check("a commit on an old one is refused with 412", conflict)
            check("info reads a mask by ranges", lambda: run("info", f"{repo}/a", "-q").stdout.strip() == first.id)
            check("and leaves nothing in the cache", lambda: not list(folder.glob("hub/**/a.msk")))
            check("a pull gives the same file", lambda: run("pull", repo, "-o", folder / "c.msk").returncode == 0)
            check("byte for byte", lambda: (folder / "c.msk").read_bytes() == (folder / "a.msk").read_bytes())
            check("a taken name needs --force", lambda: says("taken", "push", folder / "b.msk", f"{repo}/a"))
            check("a pull request", lambda: changed(folder / "b.msk", f"{repo}/b", "--create-pr"))
            check("is read at its revision", lambda: run("info", f"{repo}/b@refs/pr/1").returncode == 0)
            check("no such file", lambda: says("no such file in the repo", "info", f"{repo}/none"))
            check("no such revision", lambda: says("no revision none", "info", f"{repo}/a@none"))
            check("no such repo", lambda: says("no repo", "info", f"{repo}-none"))
            check("a wrong token", lambda: says("the token is not accepted", "info", repo, "--token", "hf_wrong"))
            check("a list finds it", listed)
            url = hf_hub_url(repo, "a.msk")
            check("a file's commit is told", lambda: api.get_hf_file_metadata(url=url).commit_hash)
        finally:
            api.delete_repo(repo, missing_ok=True)
    print(f"{wrong} otherwise than expected" if wrong else "all as expected")
    return 1 if wrong else 0


def _token() -> str:
    from huggingface_hub import get_token

    return get_token() or ""


if __name__ == "__main__":
    sys.exit(main())
