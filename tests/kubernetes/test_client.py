"""
Credentials and requests.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from standin import RefusedError, StandIn

from distrib.engines.kubernetes import _client
from distrib.engines.kubernetes._client import ApiError, Client, UnreachableError, default_namespace
from distrib.engines.kubernetes._kinds import JOBS, PODS, SECRETS
from distrib.errors import EngineError, MissingDependencyError

WHERE = "/api/v1/namespaces/here/pods"

PLUG_IN = """
import json, sys
with open(sys.argv[1], "a") as file:
    file.write("x")
with open(sys.argv[1]) as file:
    number = len(file.read())
status = {"token": f"token-{number}", "expirationTimestamp": sys.argv[2] if number == 1 else sys.argv[3]}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def certified(path: Path) -> ssl.SSLContext:
    """What a server on loopback needs for TLS; its certificate is written to *path*."""
    key, certificate = path.with_name("server.key"), path
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=standin", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class TestCredentials:
    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Without a kubeconfig, outside of a cluster, the error says what to set.
        """
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(EngineError, match=r"no credentials.*Set KUBECONFIG"):
            Client(str(tmp_path / "nothing"))

    def test_unknown_context(self, standin: StandIn) -> None:
        """
        A context that the kubeconfig does not have is named.
        """
        with pytest.raises(EngineError, match="context='elsewhere'"):
            Client(context="elsewhere")

    def test_package_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Without the official client the error has the line that installs it.
        """
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'distrib\[kubernetes\]'"):
            Client()

    def test_token(self, standin: StandIn, tmp_path: Path) -> None:
        """
        A token of the kubeconfig is sent.
        """
        standin.tokens = {"Bearer secret"}
        path = standin.kubeconfig(tmp_path / "with-token", {"token": "secret"})
        assert Client(path).list(PODS, "here")["items"] == []
        with pytest.raises(ApiError) as caught:
            Client().list(PODS, "here")
        assert caught.value.status == 401

    def test_plug_in(self, standin: StandIn, tmp_path: Path) -> None:
        """
        A plug-in's token is used until it expires, and then fetched anew.
        """
        (tmp_path / "plug_in.py").write_text(PLUG_IN, encoding="utf-8")
        soon, late = (f"{datetime.now(tz=timezone.utc) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}" for seconds in (-5, 3600))
        exec_ = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(tmp_path / "plug_in.py"), str(tmp_path / "count"), soon, late],
            "interactiveMode": "Never",
        }
        standin.tokens = {"Bearer token-2"}
        client = Client(standin.kubeconfig(tmp_path / "exec", {"exec": exec_}))
        for _ in range(3):
            client.list(PODS, "here")
        assert (tmp_path / "count").read_text(encoding="utf-8") == "xx"

    def test_changed_credentials(self, standin: StandIn, tmp_path: Path) -> None:
        """
        A token that the server does not take any more is looked up again, once.
        """
        standin.tokens = {"Bearer old"}
        path = standin.kubeconfig(tmp_path / "changing", {"token": "old"})
        client = Client(path)
        client.list(PODS, "here")
        standin.tokens = {"Bearer new"}
        standin.kubeconfig(Path(path), {"token": "new"})
        assert client.list(PODS, "here")["items"] == []

    def test_token_file(self, standin: StandIn, tmp_path: Path) -> None:
        """
        A token that somebody writes anew into a file is read again when the server does not take the old one any more.
        """
        file = tmp_path / "token"
        file.write_text("old", encoding="utf-8")
        standin.tokens = {"Bearer old"}
        client = Client(standin.kubeconfig(tmp_path / "with-file", {"tokenFile": str(file)}))
        client.list(PODS, "here")
        standin.tokens = {"Bearer new"}
        file.write_text("new", encoding="utf-8")
        assert client.list(PODS, "here")["items"] == []

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="making a certificate takes openssl")
    def test_within_a_cluster(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Without a kubeconfig, a pod's own account is taken: its certificate, its namespace, and its token, which is exchanged in time.
        """
        from kubernetes.config import incluster_config

        account = tmp_path / "serviceaccount"
        account.mkdir()
        standin = StandIn(certified(account / "ca.crt"))
        (account / "token").write_text("old", encoding="utf-8")
        (account / "namespace").write_text("team-a", encoding="utf-8")
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(standin.port))
        monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
        monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(account / "ca.crt"))
        monkeypatch.setattr(_client, "_ACCOUNT", account)
        try:
            standin.tokens = {"bearer old"}
            client = Client()
            assert client.list(PODS, "here")["items"] == []
            standin.tokens = {"bearer new"}
            (account / "token").write_text("new", encoding="utf-8")
            assert client.list(PODS, "here")["items"] == []
            assert default_namespace() == "team-a"
        finally:
            standin.close()

    def test_default_namespace(self, standin: StandIn, tmp_path: Path) -> None:
        """
        The namespace is the context's.
        """
        assert default_namespace(standin.kubeconfig(tmp_path / "other", namespace="team-a")) == "team-a"
        assert default_namespace() == "default"


class TestRequests:
    def test_objects(self, standin: StandIn) -> None:
        """
        Objects are made, merged into, read and deleted; deleting again is no error.
        """
        client = Client()
        made = client.create(SECRETS, "here", {"metadata": {"name": "mine", "labels": {"a": "b"}}})
        assert made["metadata"]["uid"]
        client.patch(SECRETS, "here", "mine", {"metadata": {"labels": {"c": "d"}}})
        assert client.get(SECRETS, "here", "mine")["metadata"]["labels"] == {"a": "b", "c": "d"}
        for _ in range(2):
            client.delete(SECRETS, "here", "mine")
        with pytest.raises(ApiError) as caught:
            client.get(SECRETS, "here", "mine")
        assert caught.value.is_absent

    def test_refusal(self, standin: StandIn) -> None:
        """
        A refusal has the status, Kubernetes' word and its message.
        """
        standin.refusals["create", "jobs"] = [RefusedError(403, "Forbidden", "exceeded quota: small")]
        with pytest.raises(ApiError, match=r"create jobs in here: exceeded quota: small \(403\)") as caught:
            Client().create(JOBS, "here", {"metadata": {"name": "x"}})
        assert (caught.value.status, caught.value.reason, caught.value.said) == (403, "Forbidden", "exceeded quota: small")
        assert not caught.value.is_taken

    def test_too_much_to_do(self, standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A server that has too much to do is asked again, as often as it may take, and no oftener.
        """
        waited: list[float] = []
        monkeypatch.setattr(_client, "sleep", waited.append)
        standin.refusals["create", "pods"] = [RefusedError(429, "TooManyRequests", "later")] * 2
        assert Client().create(PODS, "here", {"metadata": {"name": "x"}})["metadata"]["name"] == "x"
        standin.refusals["list", "pods"] = [RefusedError(429, "TooManyRequests", "later")] * 9
        with pytest.raises(ApiError, match="later"):
            Client().list(PODS, "here")
        assert waited == [1.0] * 6

    def test_nobody_there(self, standin: StandIn) -> None:
        """
        A server that does not answer is no refusal.
        """
        client = Client()
        standin.close()
        with pytest.raises(UnreachableError, match="cannot be reached"):
            client.list(PODS, "here")

    def test_counts(self, standin: StandIn) -> None:
        """
        Each request is counted, by what a Role calls it.
        """
        client = Client()
        client.list(PODS, "here")
        client.list(JOBS, "here")
        client.delete_all(PODS, "here", "a=b", 0)
        assert client.requests == {("list", "", "pods"): 1, ("list", "batch", "jobs"): 1, ("deletecollection", "", "pods"): 1}

    def test_streams_are_closed_from_outside(self, standin: StandIn) -> None:
        """
        Whoever waits for a stream is woken when another thread closes it.
        """
        stream = Client().watch(PODS, "here", 60, resourceVersion="100")
        threading.Timer(0.1, stream.close).start()
        begun = time.monotonic()
        assert list(stream.lines()) == []
        assert time.monotonic() - begun < 5

    def test_streams_of_connections_for_one_answer(self, standin: StandIn) -> None:
        """
        The same where something in between keeps no connections, so that only the answer knows its socket.
        """
        standin.keeps_connections = False
        stream = Client().watch(PODS, "here", 60, resourceVersion="0")
        closing = threading.Thread(target=lambda: (time.sleep(0.1), stream.close()), daemon=True)
        closing.start()
        assert list(stream.lines()) == []
        closing.join(5)
        assert not closing.is_alive()

    def test_broken_streams(self, standin: StandIn) -> None:
        """
        A stream that breaks says so, and what came before is told.
        """
        stream = Client().watch(PODS, "here", 60, resourceVersion="100")
        standin.put(WHERE, {"metadata": {"name": "one"}})
        lines = stream.lines()
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "one"
        standin.cut()
        with pytest.raises(UnreachableError, match="broke"):
            next(lines)

    def test_clock(self, standin: StandIn) -> None:
        """
        The server's clock is known, to the second, however wrong it or ours may be.
        """
        standin.ahead = 3600
        client = Client()
        client.list(PODS, "here")
        assert 3590 < client.skew < 3610
