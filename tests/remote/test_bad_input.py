"""What goes wrong with a Hub is one clear line with the cure, and tells no secret."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from maskhub.checkpoints.checkpoint import Checkpoint
from maskhub.container.writer import save
from tests import tiny
from tests.remote.conftest import TestHub

SECRETS = ("hf_alice", "hf_bob", "hf_reader", "hf_wrong", "s3cret")


def fails(hub: TestHub, *arguments: object, says: str, **variables: str | None) -> None:
    ran = hub(*arguments, **variables)
    assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
    assert ran.err == f"Error: {says}"


@pytest.fixture
def there(hub: TestHub, mask_path: Path) -> None:
    hub.put("alice/masks", spam__msk=mask_path.read_bytes())


LOG_IN = "og in with 'hf auth login', set HF_TOKEN, or pass --token."
HIDDEN = f"Check the name. If it is private: l{LOG_IN}"


def test_logins(hub: TestHub, there: None, mask_path: Path) -> None:
    push = ("push", mask_path, "alice/masks")
    fails(hub, *push, "--name", "b", token=None, says=f"alice/masks: a token is needed. L{LOG_IN}")
    fails(hub, "push", mask_path, "alice/new", token=None, says=f"alice/new: a token is needed. L{LOG_IN}")
    bad = {"token": "hf_wrong"}
    for command in (push, ("pull", "alice/masks"), ("info", "alice/masks/spam"), ("list",)):
        place = "the Hub" if command == ("list",) else "alice/masks"
        fails(hub, *command, **bad, says=f"{place}: the token is not accepted. L{LOG_IN}")
    no = "the token does not permit this. Use one with write access, or --create-pr."
    for token in ("hf_reader", "hf_bob"):
        fails(hub, "push", mask_path, "alice/masks/b", token=token, says=f"alice/masks: {no}")
        fails(hub, "push", mask_path, "alice/new", token=token, says=f"alice/new: {no}")
    odd = f"the token has characters that no token of the Hub has. L{LOG_IN}"
    fails(hub, "pull", "alice/masks", "--token", "hf_wrong\nhf_alice", says=odd)


def test_gated(hub: TestHub, there: None) -> None:
    hub.control(repos={"alice/masks": {"gated": True}})
    says = f"alice/masks: gated, and you have no access. Ask for it on the repo's page. L{LOG_IN}"
    for token in ("hf_bob", None):
        for command in ("pull", "info", "verify"):
            fails(hub, command, "alice/masks", token=token, says=says)
    assert hub("pull", "alice/masks").status == 0


def test_what_is_missing(hub: TestHub, there: None, mask_path: Path) -> None:
    nobody = "no such file here, and no repo bob/none on the Hub that you may see"
    for command in ("pull", "info", "verify"):
        for token in ("hf_alice", None):
            fails(hub, command, "bob/none", token=token, says=f"bob/none: {nobody}. {HIDDEN}")
        fails(hub, command, "bob/none/x.msk", says=f"bob/none/x.msk: {nobody}. {HIDDEN}")
        fails(
            hub, command, "alice/masks@v9",
            says="alice/masks: no revision v9. Name a branch, a tag or a commit.",
        )  # fmt: skip
        fails(
            hub, command, "alice/masks/ham",
            says="alice/masks/ham.msk: no such file in the repo. See what there is: maskhub list alice/masks",
        )  # fmt: skip
    hub.put("alice/text", README__md=b"# Words\n")
    for command in ("pull", "info"):
        fails(
            hub, command, "alice/text",
            says="alice/text: the repo has no mask, no file *.msk. Masks get there by: maskhub push.",
        )  # fmt: skip
    fails(hub, "push", mask_path, "alice/masks", "--revision", "v9", "--create-pr",
          says="alice/masks: no revision v9. Name a branch, a tag or a commit.")  # fmt: skip
    fails(hub, "info", "folder/x.msk", says="folder/x.msk: no such file. Check the name and the folder.")
    fails(hub, "info", "x.msk", says="x.msk: no such file. Check the name and the folder.")
    fails(hub, "info", "a/b/../c.msk", says="a/b/../c.msk: no such file. Check the name and the folder.")
    fails(hub, "push", "none.msk", "alice/masks", says="none.msk: no such file. Check the name and the folder.")


def test_names_that_lead_elsewhere(hub: TestHub, there: None, mask_path: Path) -> None:
    for name in ("../x", "/x", "a/../../x", ".hidden", "a\nb", ""):
        ran = hub("push", mask_path, "alice/masks", "--name", name)
        assert (ran.status, ran.stderr.count("\n"), "not a name for a mask" in ran.err) == (1, 1, True), ran.err
    assert [r for r in hub.requests() if not r["line"].startswith("GET")] == []


def test_a_busy_or_broken_hub(hub: TestHub, there: None, mask_path: Path, base: Checkpoint) -> None:
    def always(kind: str = "status", **more: object) -> None:
        hub.control(faults=[{"kind": kind, "times": 99, **more}])

    always(status=429, headers={"Retry-After": "7"})
    busy = "alice/masks: too many requests. Run it again in 7 seconds."
    fails(hub, "push", mask_path, "alice/masks", says=busy)
    fails(hub, "info", "alice/masks", says=busy)
    always(status=503)
    for command in (("push", mask_path, "alice/masks"), ("info", "alice/masks")):
        fails(hub, *command, says="alice/masks: the server answers 503. Run it again later.")
    always("reset")
    for command in (("push", mask_path, "alice/masks"), ("info", "alice/masks")):
        ran = hub(*command)
        assert (ran.status, ran.stderr.count("\n")) == (1, 1), ran.stderr
        assert "cannot be reached, or broke off: " in ran.err
        assert ran.err.endswith(". Run it again.")
    gone = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    ran = hub("info", "alice/masks", **gone)
    assert ran.status == 1
    assert "alice/masks: cannot be reached, or broke off: " in ran.err
    # An upload that fails for good, and one whose commit is done but not confirmed.
    save(tiny.tiny_maskset(base, seed=5), hub.folder / "task.msk")
    always(status=501, match="PUT /store")
    fails(hub, "push", "task.msk", "alice/fresh", says="alice/fresh: the server answers 501. Run it again later.")
    assert set(hub.files("alice/fresh")) == {".gitattributes"}
    always("lost", match="POST .*/commit/main")
    assert hub("push", "task.msk", "alice/fresh").status == 1
    hub.control(faults=[])
    ran = hub("push", "task.msk", "alice/fresh")
    assert ran.status == 0
    assert "is there already" in ran.out


@pytest.mark.slow
def test_a_host_that_nobody_knows(hub: TestHub) -> None:
    for command in (("info", "alice/masks"), ("pull", "alice/masks"), ("list",), ("verify", "x.msk", "--base", "a/b")):
        if command[0] == "verify":
            save(tiny.tiny_maskset(tiny.write_base(hub.folder / "base")), hub.folder / "x.msk")
        ran = hub(*command, HF_ENDPOINT="http://nowhere.invalid")
        assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
        assert "the Hub's host nowhere.invalid is not found. Check the network, and the variable HF_END" in ran.err
        assert "Run it again" not in ran.err


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 403}, {"kind": "reset"}, {"kind": "truncate"}])
def test_a_base_that_the_hub_does_not_give(
    hub: TestHub, base_folder: Path, mask_path: Path, fault: dict[str, object]
) -> None:
    """One line without a URL, least of all a signed one."""
    hub.put("base/tiny", **{path.name: path.read_bytes() for path in base_folder.iterdir()})
    hub.control(faults=[{"kind": "status", "match": "/cdn/", "times": 99} | fault])
    for base in ("base/tiny", "base/tiny@main", "base/none"):
        ran = hub("verify", mask_path, "--base", base)
        assert (ran.status, ran.out, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
        assert ran.err.startswith(f"Error: {base}: no such folder, and not from the Hub: ")
        assert ran.err.endswith("Or name a folder here.")
        for word in ("http", "?", "Client Error", "..", "s3cret", "unexpected"):
            assert word not in ran.err, ran.err


def test_what_the_client_does_not_expect_is_its_own_error(hub: TestHub, there: None, mask_path: Path) -> None:
    """Only what the client raises is explained: not a fault of our own beside it, or of a local file."""
    script = """if True:
        import maskhub, sys
        from maskhub.remote import card
        def odd(*_): raise OSError("ours")
        card.updated = odd
        try:
            maskhub.push(sys.argv[1], "alice/masks/new")
        except Exception as error:
            print(type(error).__name__, error)
    """
    ran = hub.program([sys.executable, "-c", script, str(mask_path)])
    assert ran.stdout == "OSError ours\n", ran.stderr


def test_no_secret_is_told(hub: TestHub, there: None, mask_path: Path) -> None:
    """With --debug neither, which shows what was raised; nor by the client's own log."""
    said = ""
    for faults in ([], [{"kind": "status", "times": 9, "status": 403}], [{"kind": "truncate", "times": 1}]):
        for command in (
            ["push", str(mask_path), "alice/masks"],
            ["pull", "alice/masks", "--token", "hf_bob"],
            ["info", "alice/masks", "--json"],
            ["--debug", "pull", "alice/none", "--token", "hf_wrong"],
        ):
            hub.control(faults=faults)
            ran = hub(*command, HF_HUB_VERBOSITY="info")
            said += ran.out + ran.stderr
    for blobs in hub.folder.glob("hf/**/blobs/*"):
        said += blobs.read_text(errors="replace")
    said += str(hub.files("alice/masks"))
    assert not [secret for secret in SECRETS if secret in said]
