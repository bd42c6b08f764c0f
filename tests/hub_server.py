"""A Hub on loopback: an HTTP server that speaks the Hugging Face Hub's protocol, for an unmodified `huggingface_hub` as client.

Repositories of models and data sets with commits, branches, LFS objects, private repositories and tokens, all in memory. It
answers what uploading, downloading and listing ask for; a commit is taken whole or not at all, as on the Hub.

    with HubServer() as hub:
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path, token="hf_anna")})

The client reads its settings when it is imported, so it runs in a process of its own. To break a push off half-way,
`hub.hold` names a request (`"PUT"`, `"commit"`) that is not answered any more, and `hub.held` is set when it comes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_anna": "anna", "hf_bob": "bob"}


@dataclass
class Commit:
    """A revision: every file of the repository, and what was said."""

    files: dict[str, bytes]
    message: str = ""
    parent: str | None = None


@dataclass
class Repo:
    """A repository; branch → commit id, commit id → commit."""

    id: str
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)

    def add(self, branch: str, commit: Commit) -> str:
        """Make a commit the branch's newest."""
        text = repr((self.id, len(self.commits), commit.message, sorted(commit.files)))
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha] = commit
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit that a branch or a commit id means."""
        return self.branches.get(revision) or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The files of a revision."""
        return self.commits[self.resolve(revision) or ""].files

    def log(self, branch: str = "main") -> list[str]:
        """The messages of a branch, newest first."""
        found, sha = [], self.branches.get(branch)
        while sha is not None:
            found.append(self.commits[sha].message)
            sha = self.commits[sha].parent
        return found


class HubServer:
    """The server, in a thread of its own; use as a context manager."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.hold: str | None = None
        self.skip = 0  # requests of that kind to answer before one is held
        self.held, self.release = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> HubServer:
        self.thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()

    def environment(self, home: Path, *, token: str | None = "hf_anna") -> dict[str, str]:
        """Variables for a client; with `token=None` it has none."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        inherited = {k: v for k, v in os.environ.items() if k not in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")}
        return {**inherited, **variables, **({"HF_TOKEN": token} if token else {})}

    def repo(self, name: str, kind: str = "models") -> Repo:
        """A repository that is there."""
        return self.repos[kind, name]

    def create(self, name: str, kind: str = "models", *, private: bool = False, files: Any = None) -> Repo:
        """Make a repository with one commit."""
        repo = self.repos[kind, name] = Repo(name, private)
        repo.add("main", Commit(dict(files or {}), "initial commit"))
        return repo

    def wait_if_held(self, what: str) -> None:
        """Leave this request without an answer, if it is the one."""
        if self.hold != what:
            return
        if self.skip:
            self.skip -= 1
            return
        self.held.set()
        self.release.wait(60)


class _Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    @property
    def user(self) -> str | None:
        """Whose token came with the request."""
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        return TOKENS.get(token)

    def _answer(self, method: str) -> None:
        split = urlsplit(self.path)
        self.parts = [unquote(part) for part in split.path.split("/") if part]
        self.query = parse_qs(split.query)
        self.body = self._read()
        hub = self.server_hub
        hub.requests.append(f"{method} {split.path}")
        try:
            self._route(method)
        except _Refused as error:
            headers = {"X-Error-Code": error.code} if error.code else {}
            self._send(error.status, json.dumps({"error": error.message}).encode(), headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _read(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        named = {"content-type": "application/json", **(headers or {})}
        named.setdefault("content-length", str(len(body)))
        for key, value in named.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, data: Any, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode())

    def _route(self, method: str) -> None:
        parts = self.parts
        if parts[:2] == ["api", "whoami-v2"]:
            return self._json({"name": self._needs_user(), "type": "user", "orgs": [], "auth": {}})
        if parts[:3] == ["api", "repos", "create"]:
            return self._create()
        if parts[:2] == ["api", "validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts[0] == "api" and parts[1] in ("models", "datasets") and len(parts) >= 4:
            return self._api(method, parts[1], f"{parts[2]}/{parts[3]}", parts[4:])
        if parts[0] == "lfs-upload":
            return self._upload(parts[1])
        kind, rest = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        if len(rest) > 2 and rest[1].endswith(".git") and rest[2:] == ["info", "lfs", "objects", "batch"]:
            return self._lfs_batch(kind, f"{rest[0]}/{rest[1].removesuffix('.git')}")
        if len(rest) > 4 and rest[2] == "resolve":
            return self._resolve(kind, f"{rest[0]}/{rest[1]}", rest[3], "/".join(rest[4:]))
        raise _Refused(404, "", f"no such address: {self.path}")

    def _needs_user(self) -> str:
        if self.user is None:
            raise _Refused(401, "", "Invalid username or password.")
        return self.user

    def _repo(self, kind: str, name: str, *, write: bool = False) -> Repo:
        repo = self.server_hub.repos.get((kind, name))
        owner = name.split("/")[0]
        if repo is None or (repo.private and self.user != owner):
            raise _Refused(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
        if write and self._needs_user() != owner:
            raise _Refused(403, "", "You don't have the rights to write here")
        return repo

    def _create(self) -> None:
        user, asked = self._needs_user(), json.loads(self.body)
        owner, kind = asked.get("organization") or user, f"{asked.get('type') or 'model'}s"
        name = f"{owner}/{asked['name']}"
        prefix = "datasets/" if kind == "datasets" else ""
        answer = {"url": f"{self.server_hub.url}/{prefix}{name}", "name": name}
        if owner != user:
            raise _Refused(403, "", f"You don't have the rights to create a model under the namespace {owner}")
        if (kind, name) in self.server_hub.repos:
            return self._json({"error": "You already created this repo", **answer}, 409)
        self.server_hub.create(name, kind, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return self._json(answer)

    def _api(self, method: str, kind: str, name: str, rest: list[str]) -> None:
        action = rest[0] if rest else "revision"
        write = action in ("commit", "preupload") or (action == "branch" and method != "GET")
        repo = self._repo(kind, name, write=write)
        if action == "branch":
            return self._branch(repo, rest[1])
        if action == "refs":
            heads = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": sha} for b, sha in repo.branches.items()]
            return self._json({"branches": heads, "converts": [], "tags": []})
        revision = rest[1] if len(rest) > 1 else "main"
        if action == "preupload":
            files = [self._mode(file) for file in json.loads(self.body)["files"]]
            return self._json({"files": files})
        if action == "commit":
            return self._commit(repo, kind, revision)
        sha = repo.resolve(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repo.commits[sha].files
        if action == "revision":
            siblings = [{"rfilename": path, "size": len(data)} for path, data in sorted(files.items())]
            more = {"private": repo.private, "gated": False, "disabled": False, "tags": [], "downloads": 0, "likes": 0}
            return self._json({"id": name, "modelId": name, "sha": sha, "siblings": siblings, **more})
        if action == "tree":
            return self._json(self._tree(repo, files, "/".join(rest[2:])))
        if action == "paths-info":
            wanted = parse_qs(self.body.decode()).get("paths") or _paths(self.body)
            found = [self._entry(repo, path, files[path]) for path in wanted if path in files]
            folders = [p for p in wanted if any(file.startswith(f"{p}/") for file in files)]
            return self._json(found + [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders])
        raise _Refused(404, "", f"no such address: {self.path}")

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith((".safetensors", ".parquet", ".pt", ".pth", ".bin", ".onnx"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}

    def _branch(self, repo: Repo, name: str) -> None:
        if name in repo.branches:
            raise _Refused(409, "", "Reference already exists")
        repo.branches[name] = repo.branches["main"]
        self._json({})

    def _commit(self, repo: Repo, kind: str, branch: str) -> None:
        self.server_hub.wait_if_held("commit")
        with self.server_hub.lock:
            if branch not in repo.branches:
                raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {branch}")
            parent = repo.branches[branch]
            files, message = dict(repo.commits[parent].files), ""
            for line in self.body.splitlines():
                entry = json.loads(line)
                key, value = entry["key"], entry["value"]
                if key == "header":
                    message = value["summary"]
                elif key == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif key == "lfsFile":
                    if value["oid"] not in self.server_hub.objects:
                        raise _Refused(400, "", f"LFS pointer to an object that is not there: {value['path']}")
                    files[value["path"]] = self.server_hub.objects[value["oid"]]
                    repo.lfs.add(value["oid"])
                elif key == "deletedFile":
                    files.pop(value["path"], None)
                elif key == "deletedFolder":
                    files = {p: data for p, data in files.items() if not p.startswith(value["path"].rstrip("/") + "/")}
            sha = repo.add(branch, Commit(files, message, parent))
        prefix = "datasets/" if kind == "datasets" else ""
        url = f"{self.server_hub.url}/{prefix}{repo.id}/commit/{sha}"
        self._json({"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def _lfs_batch(self, kind: str, name: str) -> None:
        self._repo(kind, name, write=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server_hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.server_hub.url}/lfs-upload/{wanted['oid']}"}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        self.server_hub.wait_if_held("PUT")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(400, "", "the content has another SHA-256")
        self.server_hub.objects[oid] = self.body
        self._json({})

    def _entry(self, repo: Repo, path: str, data: bytes) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        entry = {"type": "file", "path": path, "size": len(data), "oid": _blob(data)}
        if sha256 in repo.lfs:
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
        return entry

    def _tree(self, repo: Repo, files: dict[str, bytes], below: str) -> list[dict[str, Any]]:
        start = f"{below}/" if below else ""
        inside = {path: data for path, data in sorted(files.items()) if path.startswith(start)}
        if below and not inside:
            raise _Refused(404, "EntryNotFound", f"{below} does not exist")
        folders = sorted({start + path[len(start) :].rsplit("/", 1)[0] for path in inside if "/" in path[len(start) :]})
        entries = [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders]
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        shown = [path for path in inside if deep or "/" not in path[len(start) :]]
        return entries + [self._entry(repo, path, inside[path]) for path in shown]

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repo = self._repo(kind, name)
        sha = repo.resolve(revision)
        if sha is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        data = repo.commits[sha].files.get(path)
        if data is None:
            body = b'{"error": "Entry not found"}'
            return self._send(404, body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        sha256 = hashlib.sha256(data).hexdigest()
        tag = sha256 if sha256 in repo.lfs else _blob(data)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        headers["content-type"] = "application/octet-stream"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
        if wanted is None:
            return self._send(200, data, {**headers, "content-length": str(len(data))})
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._send(206, data[first : last + 1], headers)


def _paths(body: bytes) -> list[str]:
    paths = json.loads(body or b"{}").get("paths", [])
    return [paths] if isinstance(paths, str) else list(paths)


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
