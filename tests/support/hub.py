"""A stand-in for the Hugging Face Hub on loopback: what its client needs to publish and to fetch small models."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from support.served import served

Files = dict[str, bytes]


@dataclass
class Hub:
    """Repositories as lists of (commit, files), the newest last."""

    address: str = ""
    repositories: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Methods and paths of all requests."""

    def files(self, repository: str, revision: str) -> tuple[str, Files] | None:
        commits = self.repositories.get(repository, [])
        if revision == "main" and commits:
            return commits[-1]
        return next(((commit, files) for commit, files in commits if commit == revision), None)

    def commit(self, repository: str, files: Files) -> str:
        text = json.dumps({name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())})
        commit = hashlib.sha1(f"{len(self.repositories[repository])}{text}".encode()).hexdigest()
        self.repositories[repository].append((commit, files))
        return commit


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    with served(server):
        yield state


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self._path()
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.state.repositories.setdefault(name, [])
            self._json({"url": f"{self.state.address}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            named = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in named]})
        elif "/commit/" in path:
            repository = self._repository(path)
            commit = self._commit(repository, [json.loads(line) for line in body.splitlines()])
            url = f"{self.state.address}/{repository}/commit/{commit}"
            self._json({"success": True, "commitUrl": url, "commitOid": commit})
        else:
            self._json({"error": path}, 404)

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> str:
        found = self.state.files(repository, "main")
        files = dict(found[1]) if found else {}
        for line in lines:
            value = line["value"]
            if line["key"] == "deletedFile":
                files.pop(value["path"], None)
            elif line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
        return self.state.commit(repository, files)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self._path()
        if "/resolve/" in path:
            repository, _, rest = path[1:].partition("/resolve/")
            revision, _, name = rest.partition("/")
            found = self.state.files(repository, revision)
            if found is None or name not in found[1]:
                self._json({"error": "Entry not found"}, 404, **{"X-Error-Code": "EntryNotFound"})
            else:
                digest = hashlib.sha1(found[1][name]).hexdigest()
                self._send(found[1][name], **{"ETag": f'"{digest}"', "X-Repo-Commit": found[0]})
            return
        repository, revision = self._repository(path), "main"
        for word in ("/revision/", "/tree/"):
            if word in path:
                revision = path.partition(word)[2].partition("/")[0]
        found = self.state.files(repository, revision)
        if repository not in self.state.repositories:
            self._json({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        elif found is None and revision != "main":
            self._json({"error": "Revision not found"}, 404, **{"X-Error-Code": "RevisionNotFound"})
        elif "/tree/" in path:
            self._json([self._entry(name, content) for name, content in (found[1] if found else {}).items()])
        else:
            commit, files = found or ("0" * 40, {})
            self._json({"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]})

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.state.asked.append(f"{self.command} {path}")
        return path

    def _repository(self, path: str) -> str:
        """USER/NAME of `/api/models/USER/NAME/...`."""
        assert fnmatch(path, "/api/models/*/*"), path
        return "/".join(path.split("/")[3:5])

    def _json(self, value: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(value).encode(), status, **{"Content-Type": "application/json", **headers})

    def _send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass
