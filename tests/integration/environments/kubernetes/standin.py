"""A stand-in for a cluster: its API on loopback, behaving as one does, errors and delays and all.

Pods are child processes of the test. Namespaces take a while to settle and to go, watches end and
grow too old, quotas and pod security are held, and every object that is sent is held against the
published schema.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from tests.integration.environments.kubernetes.kubelet import Kubelet, forward, run_in
from tests.unit.environments.kubernetes import schema
from tests.unit.environments.kubernetes.manifests import Right, asked, rights

Object = dict[str, Any]
TOKEN = "a-service-account's-token"
_LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_SINGULAR = {
    "namespaces": "Namespace",
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "networkpolicies": "NetworkPolicy",
}


@dataclass
class Fault:
    """What the next requests that fit are answered with."""

    method: str
    path: str
    status: int
    message: str
    reason: str = "Unknown"
    headers: dict[str, str] = field(default_factory=dict)
    count: int = 1
    is_done: bool = False
    """Whether it is done all the same, and only the answer is lost."""


class StandIn:
    """The cluster, as far as a driver sees one."""

    def __init__(self, folder: Path) -> None:
        self.kubelet = Kubelet(folder, self.changed)
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.sent: list[Object] = []
        self.schema_faults: list[str] = []
        self.requests: Counter[str] = Counter()
        self.asked: set[Right] = set()
        """What the account needed a right for. It has those of the role that is shipped."""
        self.faults: list[Fault] = []
        self.protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io")
        self.unsettled = 0
        """How many pods of a new namespace are refused before its quota and account are there."""
        self.namespace_end_s = 0.05
        self.may_not: set[str] = set()
        self.has_metrics = False
        self.daemon_sets = ["kube-proxy", "cilium"]
        self.runtime_classes: dict[str, dict[str, str]] = {
            "gvisor": {"cpu": "50m", "memory": "64Mi"}
        }
        self.version = 0
        self.oldest = 0
        self.events: list[tuple[int, str, str, Object]] = []
        self._news = asyncio.Event()
        self._watches: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tries: Counter[str] = Counter()

    # What tests do to it.

    def fail(self, method: str, path: str, status: int, message: str, **more: Any) -> None:
        """Answer the next requests that fit with an error."""
        self.faults.append(Fault(method, path, status, message, **more))

    def break_watches(self) -> None:
        """Drop every watch in the middle."""
        for task in self._watches:
            task.cancel()

    def compact(self) -> None:
        """Forget the past: who watches from there is told that it is gone."""
        self.version += 1
        self.oldest = self.version

    def find(self, kind: str, namespace: str, name: str = "main") -> Object | None:
        return self.objects.get((kind, namespace, name))

    def all_of(self, kind: str) -> list[Object]:
        return [each for (of, _, _), each in self.objects.items() if of == kind]

    # Objects.

    def put(self, kind: str, namespace: str, name: str, told: Object) -> Object:
        """Add an object, or a new version of it."""
        key = (kind, namespace, name)
        self.version += 1
        told["metadata"]["resourceVersion"] = str(self.version)
        event = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = told
        self._tell(event, kind, told)
        return told

    def drop(self, kind: str, namespace: str, name: str) -> None:
        """Remove an object."""
        told = self.objects.pop((kind, namespace, name), None)
        if told is not None:
            self.version += 1
            told["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", kind, told)

    def changed(self, pod: Object) -> None:
        """Take a pod's new status from its kubelet."""
        metadata = pod["metadata"]
        if (kept := self.find("pods", metadata["namespace"], metadata["name"])) is not None:
            self.put(
                "pods", metadata["namespace"], metadata["name"], {**kept, "status": pod["status"]}
            )

    def _tell(self, event: str, kind: str, told: Object) -> None:
        self.events.append((self.version, event, kind, json.loads(json.dumps(told))))
        self._news.set()
        self._news = asyncio.Event()

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        for task in (*self._tasks, *self._watches):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._watches, return_exceptions=True)
        await self.kubelet.aclose()

    # Answers.

    @web.middleware
    async def door(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests[f"{request.method} {request.path}"] += 1
        right = asked(request.method, request.path, watch="watch" in request.query)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return refusal(401, "Unauthorized", "Unauthorized")
        if right is not None:
            self.asked.add(right)
            if right not in rights():
                return refusal(403, "Forbidden", f"the shipped role has no {right}")
        for fault in self.faults:
            if fault.method == request.method and re.search(fault.path, request.path):
                fault.count -= 1
                if not fault.count:
                    self.faults.remove(fault)
                if fault.is_done:
                    await handler(request)
                return refusal(fault.status, fault.reason, fault.message, fault.headers)
        return await handler(request)

    async def body(self, request: web.Request) -> Object:
        """What was sent, held against the schema."""
        content = await request.read()
        told: Object = json.loads(content) if content else {}
        if told:
            self.sent.append(told)
            found = schema.faults(told)
            self.schema_faults += [f"{told.get('kind')}: {each}" for each in found]
            if found:
                raise Refusal(422, "Invalid", "; ".join(found))
        return told

    async def create(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        namespace = request.match_info.get("namespace", "")
        told = await self.body(request)
        name = told["metadata"]["name"]
        if namespace:
            self._admit(kind, namespace, told)
        if (kind, namespace, name) in self.objects:
            said = f'{kind} "{name}" already exists'
            if "deletionTimestamp" in self.objects[kind, namespace, name]["metadata"]:
                said = f"object is being deleted: {said}"
            raise Refusal(409, "AlreadyExists", said)
        told["metadata"] |= {"uid": str(uuid4()), "creationTimestamp": now()}
        if namespace:
            told["metadata"]["namespace"] = namespace
        if kind == "namespaces":
            told["metadata"]["labels"]["kubernetes.io/metadata.name"] = name
            told["status"] = {"phase": "Active"}
        if kind == "pods":
            told["status"] = {"phase": "Pending"}
        made = self.put(kind, namespace, name, told)
        answer = json.loads(json.dumps(made))
        if kind == "pods":
            self.kubelet.start(made)
        return web.json_response(answer, status=201)

    def _admit(self, kind: str, namespace: str, told: Object) -> None:
        found = self.find("namespaces", "", namespace)
        if found is None:
            raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if "deletionTimestamp" in found["metadata"]:
            raise Refusal(
                403, "Forbidden", f"namespace {namespace} is being terminated: no new content"
            )
        for key, value in told["metadata"].get("labels", {}).items():
            if len(value) > 63 or not _LABEL.fullmatch(value):
                raise Refusal(422, "Invalid", f"metadata.labels: Invalid value: {key}={value}")
        if kind == "networkpolicies":
            _check_blocks(told)
        if kind == "pods":
            self._admit_pod(namespace, found, told)

    def _admit_pod(self, namespace: str, found: Object, told: Object) -> None:
        self._tries[namespace] += 1
        tried = self._tries[namespace]
        if tried <= self.unsettled:
            why = (
                'error looking up service account: serviceaccount "default" not found'
                if tried % 2
                else "status unknown for quota: environment, resources: limits.cpu"
            )
            raise Refusal(403, "Forbidden", f'pods "main" is forbidden: {why}')
        quota = self.find("resourcequotas", namespace, "environment")
        if quota is not None and any(key[:2] == ("pods", namespace) for key in self.objects):
            raise Refusal(403, "Forbidden", 'pods "main" is forbidden: exceeded quota: environment')
        level = found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        if level == "restricted" and (why := _beyond_restricted(told)):
            raise Refusal(
                403,
                "Forbidden",
                f'pods "main" is forbidden: violates PodSecurity "restricted:latest": {why}',
            )

    async def get(self, request: web.Request) -> web.StreamResponse:
        kind, name = request.match_info["kind"], request.match_info["name"]
        told = self.find(kind, request.match_info.get("namespace", ""), name)
        if told is None:
            raise Refusal(404, "NotFound", f'{kind} "{name}" not found')
        return web.json_response(told)

    async def list(self, request: web.Request) -> web.StreamResponse:
        kind = request.match_info["kind"]
        if request.query.get("watch") == "true":
            return await self.watch(request, kind)
        found = [
            each
            for (of, _, _), each in sorted(self.objects.items(), key=lambda item: item[0])
            if of == kind and fits(each, request.query)
        ]
        start, limit = int(request.query.get("continue", 0)), int(request.query.get("limit", 500))
        metadata: Object = {"resourceVersion": str(self.version)}
        if len(found) > start + limit:
            metadata["continue"] = str(start + limit)
        return web.json_response({"metadata": metadata, "items": found[start : start + limit]})

    async def watch(self, request: web.Request, kind: str) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            raise Refusal(410, "Expired", f"too old resource version: {since} ({self.oldest})")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        task = asyncio.create_task(self._watch(response, kind, since, request))
        self._watches.add(task)
        try:
            await asyncio.wait({task}, timeout=float(request.query.get("timeoutSeconds", 300)))
        finally:
            self._watches.discard(task)
            if task.cancelled() and request.transport is not None:
                request.transport.abort()
            task.cancel()
        return response

    async def _watch(
        self, response: web.StreamResponse, kind: str, since: int, request: web.Request
    ) -> None:
        place = 0
        while True:
            news = self._news
            for version, event, of, told in self.events[place:]:
                if version > since and of == kind and fits(told, request.query):
                    line = json.dumps({"type": event, "object": told}) + "\n"
                    await response.write(line.encode())
            place = len(self.events)
            bookmark = {"kind": "Pod", "metadata": {"resourceVersion": str(self.version)}}
            await response.write(
                json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"
            )
            await news.wait()

    async def delete(self, request: web.Request) -> web.StreamResponse:
        kind, name = request.match_info["kind"], request.match_info["name"]
        namespace = request.match_info.get("namespace", "")
        told = self.find(kind, namespace, name)
        if told is None:
            raise Refusal(404, "NotFound", f'{kind} "{name}" not found')
        options = await self.body(request)
        if kind == "pods":
            grace = options.get("gracePeriodSeconds", told["spec"]["terminationGracePeriodSeconds"])
            self._end_pod(told, grace)
        else:
            if "deletionTimestamp" in told["metadata"]:
                raise Refusal(409, "Conflict", "it is being terminated")
            metadata = {**told["metadata"], "deletionTimestamp": now()}
            self.put(
                kind, "", name, {**told, "metadata": metadata, "status": {"phase": "Terminating"}}
            )
            self.spawn(self._end_namespace(name))
        return web.json_response(self.find(kind, namespace, name) or told)

    def _end_pod(self, told: Object, grace_s: int) -> None:
        metadata = told["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        if grace_s == 0:
            self.drop("pods", namespace, name)
            self.spawn(self.kubelet.end(namespace, 0))
            return
        if "deletionTimestamp" not in metadata:
            told = {**told, "metadata": {**metadata, "deletionTimestamp": now()}}
            self.put("pods", namespace, name, told)

        async def end() -> None:
            if await self.kubelet.end(namespace, grace_s):
                self.drop("pods", namespace, name)

        self.spawn(end())

    async def _end_namespace(self, namespace: str) -> None:
        for kind, of, name in list(self.objects):
            if of == namespace and kind == "pods":
                self._end_pod(self.objects[kind, of, name], 1)
        while any(key[:2] == ("pods", namespace) for key in self.objects):
            await asyncio.sleep(0.01)
        await asyncio.sleep(self.namespace_end_s)
        for kind, of, name in list(self.objects):
            if of == namespace:
                self.drop(kind, of, name)
        self.drop("namespaces", "", namespace)

    # Subresources.

    def _pod(self, request: web.Request) -> Object:
        told = self.find("pods", request.match_info["namespace"], request.match_info["name"])
        if told is None:
            raise Refusal(404, "NotFound", f'pods "{request.match_info["name"]}" not found')
        return told

    async def log(self, request: web.Request) -> web.StreamResponse:
        told = self._pod(request)
        namespace = told["metadata"]["namespace"]
        if not self.kubelet.has_begun(namespace):
            raise Refusal(400, "BadRequest", 'container "main" in pod "main" is waiting to start')
        response = web.StreamResponse()
        await response.prepare(request)
        async for line in self.kubelet.log(
            namespace,
            since=request.query.get("sinceTime", ""),
            follow=request.query.get("follow") == "true",
        ):
            await response.write(line)
        return response

    async def exec(self, request: web.Request) -> web.StreamResponse:
        told = self._pod(request)
        if not self.kubelet.runs(told["metadata"]["namespace"]):
            raise Refusal(500, "InternalError", "container not running (main)")
        socket = web.WebSocketResponse(protocols=self.protocols)
        await socket.prepare(request)
        await run_in(self.kubelet, told["metadata"]["namespace"], socket, request.query)
        return socket

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        self._pod(request)
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        await forward(socket, int(request.query["ports"]))
        return socket

    # The rest.

    async def version_of(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"gitVersion": "v1.36.1", "major": "1", "minor": "36"})

    async def review(self, request: web.Request) -> web.StreamResponse:
        told = await self.body(request)
        asked = told["spec"]["resourceAttributes"]
        what = f"{asked['verb']} {asked['resource']}" + f"/{asked['subresource']}".rstrip("/")
        return web.json_response(
            {**told, "status": {"allowed": what not in self.may_not}}, status=201
        )

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        if not self.has_metrics:
            return web.Response(status=404, text="404 page not found")
        usage = {"cpu": "125000001n", "memory": "262144Ki"}
        return web.json_response({"containers": [{"name": "main", "usage": usage}]})

    async def some(self, request: web.Request) -> web.StreamResponse:
        what = request.path.rpartition("/")[2]
        items: list[Object] = {
            "nodes": NODES,
            "daemonsets": [{"metadata": {"name": each}, "spec": {}} for each in self.daemon_sets],
            "runtimeclasses": [
                {"metadata": {"name": name}, "handler": name, "overhead": {"podFixed": more}}
                for name, more in self.runtime_classes.items()
            ],
            "servicecidrs": [{"metadata": {}, "spec": {"cidrs": ["172.30.0.0/16", "fd99::/112"]}}],
            "endpointslices": [{"metadata": {}, "endpoints": [{"addresses": ["198.18.7.7"]}]}],
        }[what]
        return web.json_response({"metadata": {}, "items": items})


def _node(name: str, cpu: str, memory: str, pods: str, address: str, **more: Any) -> Object:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDRs": [pods], **more},
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory},
            "conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": address}],
        },
    }


NODES = [
    _node("one", "16", "32Gi", "11.200.0.0/24", "11.1.0.1"),
    _node("two", "7910m", "16777216Ki", "11.200.1.0/24", "11.1.0.2"),
    _node("three", "16", "32Gi", "11.200.2.0/24", "11.1.0.3", unschedulable=True),
]


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


def refusal(
    status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    told = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": status,
    }
    return web.json_response(told, status=status, headers=headers)


@web.middleware
async def refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as error:
        return refusal(error.status, error.reason, error.message)


def fits(told: Object, query: Any) -> bool:
    labels = told["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, _, value = term.partition("=")
        if labels.get(key) != value:
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        _, _, value = term.partition("!=")
        if told.get("status", {}).get("phase") == value:
            return False
    return True


def _check_blocks(told: Object) -> None:
    rules = [*told["spec"].get("egress", ()), *told["spec"].get("ingress", ())]
    for peer in (each for rule in rules for each in rule.get("to", rule.get("from", ()))):
        if block := peer.get("ipBlock"):
            outer = ip_network(block["cidr"])
            for each in map(ip_network, block.get("except", ())):
                within = each.version == outer.version and each.subnet_of(outer)  # type: ignore[arg-type]
                if each == outer or not within:
                    raise Refusal(422, "Invalid", f"except: {each} is not within {outer}")


def _beyond_restricted(told: Object) -> str:
    spec = told["spec"]
    pod, container = spec["securityContext"], spec["containers"][0]["securityContext"]
    held = {
        "runAsNonRoot != true": pod.get("runAsNonRoot") is True,
        "runAsUser=0": pod.get("runAsUser") != 0,
        "seccompProfile": pod.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        "allowPrivilegeEscalation != false": container.get("allowPrivilegeEscalation") is False,
        "unrestricted capabilities": container.get("capabilities", {}).get("drop") == ["ALL"],
        "host namespaces": not any(
            spec.get(each) for each in ("hostNetwork", "hostPID", "hostIPC")
        ),
    }
    return ", ".join(what for what, holds in held.items() if not holds)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@asynccontextmanager
async def standing_in(folder: Path) -> AsyncIterator[tuple[StandIn, Path]]:
    """A cluster for the block, and the configuration that leads there."""
    cluster = StandIn(folder)
    app = web.Application(middlewares=[cluster.door, refusals], client_max_size=0)
    core, policy = "/api/v1/namespaces", "/apis/networking.k8s.io/v1/namespaces"
    one = "/{namespace}/{kind}/{name}"
    app.add_routes(
        [
            web.get("/version", cluster.version_of),
            web.get("/api/v1/{kind:pods|namespaces}", cluster.list),
            web.get("/api/v1/nodes", cluster.some),
            web.get("/apis/apps/v1/daemonsets", cluster.some),
            web.get("/apis/node.k8s.io/v1/runtimeclasses", cluster.some),
            web.get("/apis/networking.k8s.io/v1/servicecidrs", cluster.some),
            web.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", cluster.some),
            web.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", cluster.review),
            web.get("/apis/metrics.k8s.io/v1beta1", cluster.metrics),
            web.get(
                "/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/main", cluster.metrics
            ),
            web.post("/api/v1/{kind:namespaces}", cluster.create),
            web.get("/api/v1/{kind:namespaces}/{name}", cluster.get),
            web.delete("/api/v1/{kind:namespaces}/{name}", cluster.delete),
            web.post(core + "/{namespace}/{kind:pods|resourcequotas}", cluster.create),
            web.post(policy + "/{namespace}/{kind:networkpolicies}", cluster.create),
            web.get(core + one, cluster.get),
            web.delete(core + one, cluster.delete),
            web.get(core + one + "/log", cluster.log),
            web.get(core + one + "/exec", cluster.exec),
            web.get(core + one + "/portforward", cluster.port_forward),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(f"http://127.0.0.1:{port}")))
    try:
        yield cluster, kubeconfig
    finally:
        with suppress(Exception):
            await cluster.aclose()
        await runner.cleanup()


def _kubeconfig(server: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "standin",
        "clusters": [{"name": "standin", "cluster": {"server": server}}],
        "users": [{"name": "steward", "user": {"token": TOKEN}}],
        "contexts": [{"name": "standin", "context": {"cluster": "standin", "user": "steward"}}],
    }
