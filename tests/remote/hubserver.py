"""A Hub in one process, for tests: ``python -m tests.remote.hubserver`` serves on loopback and prints its URL.

It keeps repos with commits in memory and speaks the part of the Hub's HTTP interface that ``huggingface_hub`` uses for
models: repos, branches, commits, LFS, resolve with ranges and redirects to a "CDN" (another host name of the same
server), listing, tokens and permissions. ``/_test`` is not the Hub's: tests read requests there, and ask for faults.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import random
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

# Tokens: the user, and whether they may write.
TOKENS = {"hf_alice": ("alice", True), "hf_bob": ("bob", True), "hf_reader": ("alice", False)}
PAGE = 3  # models in a page of a list
PART = 1 << 20  # bytes in a part of a multipart upload
MULTIPART = 3 << 20  # files from this size on are uploaded in parts


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def sha1(self) -> str:
        """Of the blob in git: that of an LFS file is its pointer."""
        content = self.content
        if self.lfs:
            text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            content = text.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.sha1


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    parent: str | None
    files: dict[str, Blob]


@dataclass
class Repo:
    name: str
    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    pulls: int = 0

    def commit(self, ref: str, title: str, files: dict[str, Blob], parent: str | None = None) -> Commit:
        sha = hashlib.sha1(f"{self.name} {len(self.commits)} {title}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, title, parent, files)
        self.refs[ref] = sha
        return self.commits[sha]

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))


@dataclass
class Fault:
    """What goes wrong with requests.

    ``kind`` is ``status``, ``reset`` (before anything is done), ``lost`` (done, but no answer),
    ``truncate`` (half of the answer), ``slow`` (that, and the rest much later), ``short`` (half, said to be all) or
    ``wrong`` (other bytes).
    """

    kind: str
    match: str = ""  # regular expression, found in "METHOD path"
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)


class Hub:
    """All state of the server."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.parts: dict[str, dict[int, bytes]] = {}
        self.log: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.chance = 0.0
        self.random = random.Random(0)

    def fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.match, line):
                    fault.times -= 1
                    return fault
            if self.random.random() < self.chance:
                kind = self.random.choice(["status", "status", "reset", "lost", "truncate"])
                return Fault(kind, status=self.random.choice([429, 500, 502, 503, 504]), headers={"Retry-After": "0"})
        return None


class ApiError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None: ...

    def answer(self) -> None:
        self.hub = self.server.hub
        url = urlsplit(self.path)
        self.place = url.path
        self.query = parse_qs(url.query, keep_blank_values=True)
        if url.path == "/_test":
            return self.control()
        line = f"{self.command} {self.path}"
        self.entry = {"line": line, "host": self.headers["Host"], "auth": "Authorization" in self.headers, "sent": 0}
        with self.hub.lock:
            self.hub.log.append(self.entry)
        self.trouble = self.hub.fault(line)
        kind = self.trouble.kind if self.trouble else None
        if kind == "reset":
            return self.reset()
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.trouble and kind == "status":
                raise ApiError(self.trouble.status, "made to fail")
            self.route()
        except ApiError as error:
            headers = {"X-Error-Message": error.message, **({"X-Error-Code": error.code} if error.code else {})}
            if self.trouble:
                headers |= self.trouble.headers
            self.give({"error": error.message}, status=error.status, headers=headers)
        return None

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

    def reset(self) -> None:
        """End the connection at once, without a word."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        self.rfile.close()
        self.wfile = open("/dev/null", "wb")  # noqa: SIM115

    def give(self, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        kind = self.trouble.kind if self.trouble else None
        if kind == "lost":
            return self.reset()
        length = len(content)
        if kind in ("truncate", "slow", "short") and status < 300:
            content = content[: len(content) // 2]
        if kind == "wrong" and status < 300:
            content = bytes(len(content))
        headers = {"Content-Length": str(len(content) if kind == "short" else length), **(headers or {})}
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
            self.entry["sent"] = len(content)
            if kind == "slow":
                self.wfile.flush()
                time.sleep(60)
            self.close_connection = self.close_connection or kind in ("truncate", "slow")
        return None

    def control(self) -> None:
        self.trouble, self.entry = None, {}
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        hub = self.hub
        with hub.lock:
            if "faults" in asked:
                hub.faults = [Fault(**fault) for fault in asked["faults"]]
            if "chance" in asked:
                hub.chance, hub.random = asked["chance"], random.Random(asked.get("seed", 0))
            for name, values in asked.get("repos", {}).items():
                for key, value in values.items():
                    setattr(hub.repos[name], key, value)
            for name, files in asked.get("files", {}).items():
                repo = hub.repos.setdefault(name, Repo(name))
                blobs = {n: Blob(c, b"\0" in c) for n, t in files.items() for c in [base64.b64decode(t)]}
                head = repo.at("main")
                repo.commit("main", "made by a test", {**(head.files if head else {}), **blobs}, head and head.sha)
                hub.stored |= {b.sha256: b.content for b in blobs.values() if b.lfs}
            log = list(hub.log)
            if asked.get("clear"):
                hub.log.clear()
            repos = {
                name: {
                    "private": repo.private,
                    "refs": repo.refs,
                    "commits": len(repo.commits),
                    "files": {
                        ref: {n: base64.b64encode(b.content).decode() for n, b in repo.commits[sha].files.items()}
                        for ref, sha in repo.refs.items()
                    }
                    if asked.get("contents")
                    else {},
                }
                for name, repo in hub.repos.items()
            }
        self.give({"log": log, "repos": repos})

    # Who asks, and what they may do.

    def user(self) -> tuple[str | None, bool]:
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if not token:
            return None, False
        if token not in TOKENS:
            raise ApiError(401, "Invalid credentials in Authorization header")
        return TOKENS[token]

    def repo(self, name: str) -> Repo:
        user, _ = self.user()
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and user != name.partition("/")[0]):
            raise ApiError(404 if user else 401, "Repository not found", "RepoNotFound")
        return repo

    def readable(self, name: str) -> Repo:
        repo = self.repo(name)
        user, _ = self.user()
        if repo.gated and user != name.partition("/")[0]:
            raise ApiError(403 if user else 401, f"Access to model {name} is restricted.", "GatedRepo")
        return repo

    def may_write(self, name: str, proposing: bool = False) -> None:
        user, write = self.user()
        if user is None:
            raise ApiError(401, "Invalid username or password.")
        if not write or (user != name.partition("/")[0] and not proposing):
            raise ApiError(403, "Forbidden: you must use a write token to upload to a repository.")

    def at(self, repo: Repo, revision: str) -> Commit:
        if (commit := repo.at(revision)) is None:
            raise ApiError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # What can be asked for.

    def route(self) -> None:
        name = r"(?P<name>[^/]+/[^/]+)"
        routes = [
            ("POST", "/api/repos/create", self.create),
            ("DELETE", "/api/repos/delete", self.delete),
            ("POST", "/api/validate-yaml", self.validate),
            ("GET", "/api/whoami-v2", self.whoami),
            ("GET", "/api/models", self.models),
            ("GET", rf"/api/models/{name}(?:/revision/(?P<revision>.+))?", self.info),
            ("GET", rf"/api/models/{name}/refs", self.refs),
            ("GET", rf"/api/models/{name}/commits/(?P<revision>[^/]+)", self.commits),
            ("GET", rf"/api/models/{name}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?", self.tree),
            ("POST", rf"/api/models/{name}/paths-info/(?P<revision>.+)", self.paths),
            ("POST", rf"/api/models/{name}/branch/(?P<branch>.+)", self.branch),
            ("POST", rf"/api/models/{name}/preupload/(?P<revision>.+)", self.preupload),
            ("POST", rf"/api/models/{name}/commit/(?P<revision>.+)", self.commit),
            ("POST", rf"/{name}\.git/info/lfs/objects/batch", self.batch),
            ("PUT", r"/store/(?P<oid>[0-9a-f]{64})(?:/(?P<part>\d+))?", self.store),
            ("POST", r"/complete/(?P<oid>[0-9a-f]{64})", self.complete),
            ("POST", r"/verify", self.verify),
            ("GET|HEAD", rf"/{name}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", self.resolve),
            ("GET|HEAD", r"/cdn/(?P<oid>[0-9a-f]{64})", self.cdn),
        ]
        for methods, pattern, call in routes:
            match = re.fullmatch(pattern, self.place)
            if match and self.command in methods.split("|"):
                with self.hub.lock if self.command in ("POST", "PUT") else threading.Lock():
                    return call(**{key: value and unquote(value) for key, value in match.groupdict().items()})
        raise ApiError(404, f"no such place: {self.command} {self.place}")

    def create(self) -> None:
        asked = json.loads(self.body)
        user, _ = self.user()
        name = f"{asked.get('organization') or user}/{asked['name']}"
        self.may_write(name)
        url = f"{self.server.url}/{name}"
        if name in self.hub.repos:
            return self.give({"error": "You already created this model repo", "url": url}, status=409)
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[name] = Repo(name, private)
        self.hub.repos[name].commit("main", "initial commit", {".gitattributes": Blob(b"*.msk filter=lfs\n", False)})
        return self.give({"url": url, "name": name, "id": name})

    def delete(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or self.user()[0]}/{asked['name']}"
        self.may_write(name)
        del self.hub.repos[self.repo(name).name]
        self.give({})

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        match = re.match(r"\s*---\n(.*?)\n---", content, re.DOTALL)
        data = yaml.safe_load(match[1]) if match else {}
        errors = []
        for base in [data["base_model"]] if isinstance(data.get("base_model"), str) else data.get("base_model", []):
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base):
                errors.append({"message": f'"base_model" with value "{base}" is not valid'})
        if data.get("base_model_relation") not in (None, "adapter", "finetune", "merge", "quantized"):
            errors.append({"message": '"base_model_relation" is not valid'})
        for result in itertools.chain.from_iterable(m["results"] for m in data.get("model-index", [])):
            if not {"type"} <= set(result["task"]) or not {"name", "type"} <= set(result["dataset"]):
                errors.append({"message": '"model-index" is not valid'})
        self.give({"errors": errors, "warnings": []}, status=400 if errors else 200)

    def whoami(self) -> None:
        user, write = self.user()
        if user is None:
            raise ApiError(401, "Invalid username or password.")
        self.give({"name": user, "auth": {"accessToken": {"role": "write" if write else "read"}}})

    def described(self, repo: Repo, commit: Commit, blobs: bool = False) -> dict[str, Any]:
        card = commit.files.get("README.md")
        match = re.match(r"---\r?\n(.*?)\r?\n---", card.content.decode(), re.DOTALL) if card else None
        data: Any = {}
        with contextlib.suppress(yaml.YAMLError):
            data = yaml.safe_load(match[1]) if match else {}
        data = data if isinstance(data, dict) else {}
        bases = data.get("base_model") or []
        bases = [bases] if isinstance(bases, str) else bases
        relation = data.get("base_model_relation")
        siblings: list[dict[str, Any]] = []
        for path, blob in sorted(commit.files.items()):
            sibling: dict[str, Any] = {"rfilename": path}
            if blobs:
                sibling |= {"size": len(blob.content), "blobId": blob.sha1}
                if blob.lfs:
                    sibling["lfs"] = {"sha256": blob.sha256, "size": len(blob.content), "pointerSize": 130}
            siblings.append(sibling)
        return {
            "id": repo.name, "modelId": repo.name, "author": repo.name.partition("/")[0], "sha": commit.sha,
            "private": repo.private, "gated": "manual" if repo.gated else False, "disabled": False,
            "lastModified": "2026-01-02T03:04:05.000Z", "createdAt": "2026-01-01T00:00:00.000Z", "likes": 0,
            "downloads": 0, "siblings": siblings, "cardData": data or None, "library_name": data.get("library_name"),
            "pipeline_tag": data.get("pipeline_tag"),
            "tags": [
                *data.get("tags", []), *([data["library_name"]] if data.get("library_name") else []),
                *(f"base_model:{base}" for base in bases), *(f"base_model:{relation}:{base}" for base in bases),
            ],
        }  # fmt: skip

    def models(self) -> None:
        user, _ = self.user()
        first = {key: values[0] for key, values in self.query.items()}
        found = []
        with self.hub.lock:
            for name, repo in sorted(self.hub.repos.items()):
                head = repo.at("main")
                if head is None or (repo.private and user != name.partition("/")[0]):
                    continue
                info = self.described(repo, head)
                if (
                    set(self.query.get("filter", [])) <= set(info["tags"])
                    and first.get("author", info["author"]) == info["author"]
                    and first.get("search", "").lower() in name.lower()
                ):
                    if "full" not in first:
                        del info["siblings"]
                    if "cardData" not in first:
                        del info["cardData"]
                    found.append(info)
        start = int(first.get("cursor", 0))
        stop = start + min(PAGE, int(first.get("limit", PAGE)))
        headers = {}
        if stop < len(found):
            rest = re.sub(r"&?cursor=\d+", "", urlsplit(self.path).query)
            headers["Link"] = f'<{self.server.url}/api/models?{rest}&cursor={stop}>; rel="next"'
        self.give(found[start:stop], headers=headers)

    def info(self, name: str, revision: str | None) -> None:
        repo = self.repo(name)
        self.give(self.described(repo, self.at(repo, revision or "main"), "blobs" in self.query))

    def refs(self, name: str) -> None:
        repo = self.repo(name)
        kinds: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for ref, sha in repo.refs.items():
            full = ref if ref.startswith("refs/") else f"refs/heads/{ref}"
            kinds["pullRequests" if ref.startswith("refs/pr") else "branches"].append(
                {"name": ref, "ref": full, "targetCommit": sha}
            )
        self.give(kinds)

    def commits(self, name: str, revision: str) -> None:
        repo = self.repo(name)
        found = []
        commit: Commit | None = self.at(repo, revision)
        while commit:
            date = "2026-01-02T03:04:05.000Z"
            found.append({"id": commit.sha, "title": commit.title, "message": "", "date": date, "authors": []})
            commit = repo.commits.get(commit.parent or "")
        self.give(found)

    def entry_of(self, path: str, blob: Blob) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.sha1}
        if blob.lfs:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 130}
        return entry

    def tree(self, name: str, revision: str, path: str | None) -> None:
        commit = self.at(self.readable(name), revision)
        self.give([self.entry_of(p, b) for p, b in sorted(commit.files.items()) if p.startswith(path or "")])

    def paths(self, name: str, revision: str) -> None:
        commit = self.at(self.readable(name), revision)
        asked = json.loads(self.body) if self.body.startswith(b"{") else parse_qs(self.body.decode())
        self.give([self.entry_of(p, commit.files[p]) for p in asked["paths"] if p in commit.files])

    def branch(self, name: str, branch: str) -> None:
        self.may_write(name)
        repo = self.repo(name)
        if branch in repo.refs:
            return self.give({"error": "Reference already exists"}, status=409)
        repo.refs[branch] = self.at(repo, json.loads(self.body or b"{}").get("startingPoint", "main")).sha
        return self.give({})

    def preupload(self, name: str, revision: str) -> None:
        proposing = "create_pr" in self.query
        self.may_write(name, proposing)
        commit = self.at(self.repo(name), revision)
        files = []
        for file in json.loads(self.body)["files"]:
            binary = b"\0" in base64.b64decode(file["sample"]) or file["size"] > 10 << 20
            old = commit.files.get(file["path"])
            files.append(
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if binary else "regular",
                    "shouldIgnore": False,
                    **({"oid": old.etag} if old else {}),
                }
            )
        self.give({"files": files, "commitOid": commit.sha})

    def batch(self, name: str) -> None:
        self.may_write(name, proposing=True)
        asked = json.loads(self.body)
        objects = []
        for item in asked["objects"]:
            oid, size = item["oid"], item["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
            if oid not in self.hub.stored:
                upload: dict[str, Any] = {"href": f"{self.server.cdn}/store/{oid}?X-Amz-Signature=s3cret"}
                if size >= MULTIPART:
                    count = -(-size // PART)
                    parts = {f"{i:05d}": f"{self.server.cdn}/store/{oid}/{i}?s=s3cret" for i in range(1, count + 1)}
                    upload = {"href": f"{self.server.cdn}/complete/{oid}", "header": {"chunk_size": str(PART), **parts}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{self.server.url}/verify"}}
            objects.append(answer)
        large = any(o.get("actions", {}).get("upload", {}).get("header") for o in objects)
        self.give({"transfer": "multipart" if large else "basic", "objects": objects})

    def store(self, oid: str, part: str | None) -> None:
        if part is None:
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise ApiError(400, "the content has another SHA-256")
            self.hub.stored[oid] = self.body
        else:
            self.hub.parts.setdefault(oid, {})[int(part)] = self.body
        self.give(b"", headers={"ETag": f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'})

    def complete(self, oid: str) -> None:
        whole = b"".join(content for _, content in sorted(self.hub.parts.pop(oid, {}).items()))
        if hashlib.sha256(whole).hexdigest() != oid:
            raise ApiError(400, "the parts have another SHA-256")
        self.hub.stored[oid] = whole
        self.give({})

    def verify(self) -> None:
        self.give({}, status=200 if json.loads(self.body)["oid"] in self.hub.stored else 404)

    def commit(self, name: str, revision: str) -> None:
        proposing = "create_pr" in self.query
        self.may_write(name, proposing)
        repo = self.repo(name)
        head = self.at(repo, revision)
        items = [json.loads(line) for line in self.body.splitlines() if line]
        header = items[0]["value"]
        parent = header.get("parentCommit")
        if parent and not proposing and parent != head.sha:
            raise ApiError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for item in items[1:]:
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise ApiError(400, "LFS pointer to a file that does not exist")
                files[value["path"]] = Blob(self.hub.stored[value["oid"]], True)
            elif item["key"] == "deletedFile":
                files.pop(value["path"], None)
        ref = revision
        if proposing:
            repo.pulls += 1
            ref = f"refs/pr/{repo.pulls}"
        commit = repo.commit(ref, header["summary"], files, head.sha)
        url = f"{self.server.url}/{name}"
        answer = {"success": True, "commitOid": commit.sha, "commitUrl": f"{url}/commit/{commit.sha}"}
        if proposing:
            answer["pullRequestUrl"] = f"{url}/discussions/{repo.pulls}"
        self.give(answer)

    def resolve(self, name: str, revision: str, path: str) -> None:
        repo = self.readable(name)
        commit = self.at(repo, revision)
        headers = {"X-Repo-Commit": commit.sha}
        blob = commit.files.get(path)
        if blob is None:
            missing = {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.give(b"", status=404, headers=missing)
        if not blob.lfs:
            return self.ranged(blob.content, {**headers, "ETag": f'"{blob.etag}"'})
        headers |= {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.content)), "ETag": '"pointer"'}
        place = f"{self.server.cdn}/cdn/{blob.sha256}?Signature={quote('s3cret')}&Expires={int(time.time()) + 3600}"
        return self.give(b"", status=302, headers={**headers, "Location": place})

    def cdn(self, oid: str) -> None:
        if self.headers["Authorization"]:
            raise ApiError(400, "only one way to authenticate is allowed")  # as signed URLs of S3 have it
        if oid not in self.hub.stored:
            raise ApiError(404, "no such object")
        self.ranged(self.hub.stored[oid], {"ETag": f'"{oid[:32]}"'})

    def ranged(self, content: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.give(content, headers={**headers, "Accept-Ranges": "bytes"})
        start, stop = int(asked[1]), min(int(asked[2] or len(content)) + 1, len(content))
        if start >= len(content):
            return self.give(b"", status=416, headers={"Content-Range": f"bytes */{len(content)}"})
        headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self.give(content[start:stop], status=206, headers=headers)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = Hub()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.cdn = f"http://localhost:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, ValueError)):  # clients are killed, and connections reset
            super().handle_error(*_)  # type: ignore[arg-type]


def main() -> None:
    server = Server()
    print(server.url, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
