"""A stand-in of the Hugging Face Hub in this process, for huggingface_hub's downloads and uploads."""

import base64
import hashlib
import http.server
import json
import re
import urllib.parse

import pytest
from helpers import http_files

LFS_BYTES = 10_000  # a larger file is uploaded to the store of large files
UNKNOWN_LICENSE = "nonsense"
TOKENS = {"writer": ("anna", True), "reader": ("ben", False)}  # token → (user, whether it may write)


class Repository:
    """Commits by digest, each path → bytes; `branches` and tags name them."""

    def __init__(self, files=None, private=False):
        self.private, self.commits, self.branches, self.log = private, {}, {}, []
        self.commit(files or {})

    def commit(self, files, branch="main"):
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def find(self, revision):
        """(digest, files) of a branch, tag or commit; None for no such."""
        sha = self.branches.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None

    @property
    def files(self):
        return self.commits[self.branches["main"]]


class HubServer(http.server.ThreadingHTTPServer):
    """Serves `repositories`, USER/NAME → Repository, at `url`.

    truncated: paths of which only the half is sent, as if complete. fail: path of a request → a status to
    answer with, or None. requests: "METHOD path" of each request. stored: the large files by their SHA-256.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.requests, self.stored, self.truncated = {}, [], {}, set()
        self.fail = lambda path: None
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Says nothing of clients that have gone."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def handle_request(self):
        self.path, _, self.query = urllib.parse.unquote(self.path).partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.read_chunk, b""))
        self.server.requests.append(f"{self.command} {self.path}")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.user, self.writes = TOKENS.get(token, (None, False))
        status = self.server.fail(self.path)
        if status:
            self.answer(status, {"error": "made to fail"})
            return
        if self.command == "POST" and self.user is None and "validate" not in self.path:
            self.answer(401, {"error": "Invalid username or password."})
            return
        for pattern, method in ROUTES.items():
            match = re.fullmatch(pattern, f"{self.command} {self.path}")
            if match:
                method(self, body, *match.groups())
                return
        self.answer(404, {"error": f"the stand-in has no {self.command} {self.path}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def read_chunk(self):
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def answer(self, status, content, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def found(self, name, revision):
        """(repository, digest, files), or None where the request was answered with an error."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.user is None):
            self.answer(
                404 if self.user else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound"
            )
            return None
        commit = repository.find(revision)
        if commit is None:
            self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound")
            return None
        return repository, *commit

    def info(self, body, name, revision=None):
        found = self.found(name, revision or "main")
        if found:
            repository, sha, files = found
            siblings = [{"rfilename": path} for path in files]
            self.answer(200, {"id": name, "modelId": name, "sha": sha, "private": repository.private,
                              "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def tree(self, body, name, revision):
        found = self.found(name, revision)
        if found:
            self.answer(200, [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest(),
                 **({"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 130}}
                    if len(data) > LFS_BYTES else {})}
                for path, data in found[2].items()
            ])  # fmt: skip

    def file(self, body, name, revision, path):
        found = self.found(name, revision)
        if found and path not in found[2]:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
        elif found:
            data = found[2][path]
            etag = sha256(data) if len(data) > LFS_BYTES else hashlib.sha1(data).hexdigest()
            sent = data[: len(data) // 2] if path in self.server.truncated else data
            self.answer(200, sent, ETag=f'"{etag}"', X_Repo_Commit=found[1], X_Linked_Size=len(data))

    def whoami(self, body):
        if self.user:
            self.answer(200, {"name": self.user, "type": "user", "orgs": []})
        else:
            self.answer(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials")

    def create(self, body):
        wish = json.loads(body)
        name = f"{wish['organization'] or self.user}/{wish['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if not self.writes or name.partition("/")[0] != self.user:
            self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        elif name in self.server.repositories:
            self.answer(409, {"error": "You already created this model repo", **url})
        else:
            private = wish.get("private") or wish.get("visibility") == "private"
            self.server.repositories[name] = Repository({".gitattributes": b""}, private)
            self.answer(200, url)

    def validate(self, body):
        """Refuses a header with `UNKNOWN_LICENSE`."""
        known = f"license: {UNKNOWN_LICENSE}" not in json.loads(body)["content"]
        errors = {"errors": [{"message": '"license" must be one of the known ones'}]}
        self.answer(200 if known else 400, {} if known else errors)

    def preupload(self, body, name, revision):
        if self.found(name, revision):
            self.answer(200, {"files": [
                {"path": file["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if file["size"] > LFS_BYTES else "regular"}
                for file in json.loads(body)["files"]
            ]})  # fmt: skip

    def batch(self, body, name):
        objects = json.loads(body)["objects"]
        upload = lambda oid: {"upload": {"href": f"{self.server.url}/lfs/{oid}"}}
        self.answer(
            200, {"transfer": "basic", "objects": [{**o, "actions": upload(o["oid"])} for o in objects]}
        )

    def store(self, body, oid):
        assert sha256(body) == oid
        self.server.stored[oid] = body
        self.answer(200, {})

    def commit(self, body, name, revision):
        found = self.found(name, revision)
        if not found:
            return
        repository, _, files = found
        files, lines = dict(files), [json.loads(line) for line in body.splitlines()]
        for key, value in ((line["key"], line["value"]) for line in lines):
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        repository.log.append(lines)
        sha = repository.commit(files, revision)
        self.answer(
            200, {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"}
        )

    def log_message(self, format, *args):
        """Says nothing."""


REPOSITORY = r"([\w.-]+/[\w.-]+)"
ROUTES = {
    rf"GET /api/models/{REPOSITORY}": Handler.info,
    rf"GET /api/models/{REPOSITORY}/revision/(.+)": Handler.info,
    rf"GET /api/models/{REPOSITORY}/tree/([^/]+)": Handler.tree,
    rf"(?:GET|HEAD) /{REPOSITORY}/resolve/([^/]+)/(.+)": Handler.file,
    r"GET /api/whoami-v2": Handler.whoami,
    r"POST /api/repos/create": Handler.create,
    r"POST /api/validate-yaml": Handler.validate,
    rf"POST /api/models/{REPOSITORY}/preupload/(.+)": Handler.preupload,
    rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch": Handler.batch,
    r"PUT /lfs/(\w+)": Handler.store,
    rf"POST /api/models/{REPOSITORY}/commit/(.+)": Handler.commit,
}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def serving():
    """The stand-in, while a block runs."""
    return http_files.running(HubServer())


def settings(server, home):
    """Variables with which a process uses the stand-in, and keeps its cache in `home`."""
    return {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in, used by huggingface_hub in this process, with a new cache and no token."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs simsiam-tf[hub]")
    from simsiam_tf.pretrained import hub as ours

    with serving() as server:
        home = tmp_path / "hf_home"
        files = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        changes = {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": files,
                   "HF_HUB_CACHE": str(home / "hub"), "HF_HUB_DISABLE_XET": True,
                   "HF_TOKEN_PATH": str(home / "token")}  # fmt: skip
        for name, value in changes.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        ours.download.cache_clear()
        yield server
        ours.download.cache_clear()
