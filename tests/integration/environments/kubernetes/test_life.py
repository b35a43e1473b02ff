from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from steward_server.environments.driver import Command, Exit, Feature, Gone, Hold, Owned, Unusable
from steward_server.environments.environment import NetworkPolicy, SecurityContext
from steward_server.environments.kubernetes import Cluster, KubernetesDriver
from steward_server.errors import Unavailable
from tests.integration.environments.kubernetes.kubelet import STOLEN_IMAGE
from tests.integration.environments.kubernetes.machines import Machines, shell, spec, until
from tests.integration.environments.kubernetes.standin import StandIn, standing_in


async def test_an_environment_is_a_walled_and_limited_namespace_with_one_pod(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.unsettled = 2
    name = await machines.make(
        labels={"project": "x", "steward.dev/server": "mine", "not a label": "y"},
        network=NetworkPolicy(allow_internet=True, allowed_ingress_ports=(8080,)),
    )
    namespace = cluster.find("namespaces", "", f"agentbox-{name}")
    assert namespace is not None
    labels = namespace["metadata"]["labels"]
    assert labels["project"] == "x"
    assert labels["steward.dev/environment"] == name
    assert labels["steward.dev/server"] != "mine"
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    kinds = [each["kind"] for each in cluster.sent if each["kind"] != "SelfSubjectAccessReview"]
    assert kinds == ["Namespace", "ResourceQuota", *["NetworkPolicy"] * 3, *["Pod"] * 3]
    pod = cluster.find("pods", f"agentbox-{name}")
    assert pod is not None
    assert pod["spec"]["activeDeadlineSeconds"] == 90_000


async def test_a_cluster_that_is_not_settled_yet_is_waited_for(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.unsettled = 5
    name = await machines.make()
    assert (await machines.run(name, shell("echo alive"))).stdout == "alive\n"


@pytest.mark.parametrize(
    ("more", "reason", "words"),
    [
        ({"command": ("/no/such",)}, "NOT_EXECUTABLE", "executable file not found"),
        ({"node_selector": {"disk": "fast"}}, "START_TIMEOUT", "didn't match Pod's node affinity"),
        ({"runtime_class": "kata"}, "RUNTIME_CLASS", "gvisor"),
        ({"command": ("",)}, "BAD_COMMAND", "empty"),
        (
            {"security": SecurityContext(run_as_user=0, run_as_non_root=True)},
            "RUN_AS_NON_ROOT",
            "user 0",
        ),
    ],
)
async def test_what_cannot_be_made_is_refused_in_the_clusters_words_and_leaves_nothing(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path, more: Any, reason: str, words: str
) -> None:
    driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig), start_timeout_s=0.5)
    await driver.open()
    try:
        with pytest.raises(Unusable, match=words) as refusal:
            await driver.create("env-1", spec(**more))
        assert refusal.value.reason == reason
        await until(lambda: cluster.all_of("namespaces") == [])
    finally:
        await driver.aclose()


@pytest.mark.parametrize(
    ("image", "reason"),
    [("registry.invalid/not-there:1", "UNKNOWN_IMAGE"), (STOLEN_IMAGE, "IMAGE_PULL")],
)
async def test_an_image_that_is_not_to_be_had_is_named(
    machines: Machines, cluster: StandIn, image: str, reason: str
) -> None:
    with pytest.raises(Unusable, match=image) as refusal:
        await machines.driver.create("env-1", replace(spec(), image=image))
    assert refusal.value.reason == reason
    await until(lambda: cluster.all_of("namespaces") == [])


@pytest.mark.parametrize(
    ("path", "status", "message", "reason"),
    [
        ("/namespaces$", 403, "namespaces is forbidden", "REFUSED_BY_CLUSTER"),
        ("/resourcequotas$", 422, "Invalid value: x", "INVALID"),
        ("/networkpolicies$", 403, "networkpolicies is forbidden", "REFUSED_BY_CLUSTER"),
        ("/pods$", 403, 'pods "main" is forbidden: exceeded quota', "REFUSED_BY_CLUSTER"),
        ("/pods$", 422, "spec.tolerations: Invalid value", "INVALID"),
    ],
)
async def test_a_refusal_by_the_api_is_passed_on_and_leaves_nothing(
    machines: Machines, cluster: StandIn, path: str, status: int, message: str, reason: str
) -> None:
    cluster.fail("POST", path, status, message)
    with pytest.raises(Unusable, match=message) as refusal:
        await machines.driver.create("env-1", spec())
    assert refusal.value.reason == reason
    await until(lambda: cluster.all_of("namespaces") == [])


async def test_who_is_told_to_come_back_later_does(machines: Machines, cluster: StandIn) -> None:
    cluster.fail("POST", "/namespaces$", 429, "too many requests", headers={"Retry-After": "1"})
    cluster.fail("POST", "/resourcequotas$", 503, "the server is starting")
    began = time.monotonic()
    await machines.make()
    assert time.monotonic() - began > 1


async def test_what_was_made_although_the_answer_was_an_error_is_used(
    machines: Machines, cluster: StandIn
) -> None:
    for path in ("/namespaces$", "/resourcequotas$", "/networkpolicies$", "/pods$"):
        cluster.fail("POST", path, 504, "the request timed out", is_done=True)
    name = await machines.make()
    assert (await machines.run(name, Command(("true",)))).exit == Exit(0)


async def test_a_making_that_is_given_up_leaves_nothing(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.kubelet.start_s = 60
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(machines.driver.create("env-1", spec()), 0.5)
    await until(lambda: cluster.all_of("namespaces") == [])


async def test_a_namespace_that_was_made_without_an_answer_is_used(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.fail("POST", "/namespaces$", 504, "timeout", is_done=True)
    name = await machines.make()
    assert (await machines.run(name, shell("echo up"))).stdout == "up\n"
    with pytest.raises(Unusable) as refusal:
        await machines.driver.create(name, spec())
    assert refusal.value.reason == "ALREADY_EXISTS"
    assert (await machines.run(name, shell("echo still"))).stdout == "still\n"


async def test_a_namespace_that_was_made_though_it_was_refused_is_taken_back(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.fail("POST", "/namespaces$", 400, "something failed", is_done=True)
    with pytest.raises(Unusable):
        await machines.driver.create("env-1", spec())
    await until(lambda: cluster.all_of("namespaces") == [])


async def test_a_namespace_of_somebody_else_is_left_alone(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.put("namespaces", "", "agentbox-env-1", {"metadata": {"name": "agentbox-env-1"}})
    with pytest.raises(Unusable) as refusal:
        await machines.driver.create("env-1", spec())
    assert refusal.value.reason == "ALREADY_EXISTS"
    with pytest.raises(Gone):
        await machines.driver.delete("env-1", grace_s=0)
    assert cluster.find("namespaces", "", "agentbox-env-1") is not None
    assert await machines.driver.list_owned() == []


async def test_a_machine_can_be_made_where_one_of_its_name_is_just_going(
    machines: Machines, cluster: StandIn
) -> None:
    cluster.namespace_end_s = 0.5
    await machines.driver.create("env-1", spec())
    await machines.driver.delete("env-1", grace_s=0)
    await machines.driver.create("env-1", spec())
    assert (await machines.run("env-1", shell("echo again"))).stdout == "again\n"


@pytest.mark.parametrize(
    ("script", "exit_"),
    [("exit 0", Exit(0)), ("exit 9", Exit(9)), ("kill -9 $$", Exit(137, 9))],
)
async def test_the_end_of_the_main_command_is_told(
    machines: Machines, script: str, exit_: Exit
) -> None:
    name = await machines.make("/bin/sh", "-c", f"sleep 0.1; {script}")
    assert await machines.driver.wait(name) == exit_
    assert await machines.driver.wait(name) == exit_
    owned = await machines.driver.list_owned()
    assert owned == [Owned(name, is_alive=False, exit=exit_)]


async def test_an_eviction_is_an_end_and_the_log_says_why(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    waiting = asyncio.create_task(machines.driver.wait(name))
    cluster.kubelet.evict(f"agentbox-{name}", "Evicted", "it used too much ephemeral-storage")
    assert await waiting == Exit(137, 9)
    for _ in range(2):
        records = [each async for each in machines.driver.logs(name)]
        assert [(each.stream, each.message) for each in records] == [
            ("system", "Evicted: it used too much ephemeral-storage")
        ]


async def test_an_end_is_heard_of_though_watches_break_and_grow_old(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    waiting = asyncio.create_task(machines.driver.wait(name))
    for _ in range(3):
        cluster.break_watches()
        cluster.compact()
        await asyncio.sleep(0.3)
    cluster.kubelet.evict(f"agentbox-{name}", "Evicted", "no room")
    async with asyncio.timeout(30):
        assert await waiting == Exit(137, 9)


async def test_a_pod_that_somebody_else_deletes_is_a_machine_that_is_gone(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    waiting = asyncio.create_task(machines.driver.wait(name))
    await asyncio.sleep(0.05)
    cluster.drop("pods", f"agentbox-{name}", "main")
    with pytest.raises(Gone):
        await asyncio.wait_for(waiting, 30)
    assert await machines.driver.list_owned() == [Owned(name, is_alive=False)]


async def test_a_deleted_machine_is_asked_first_and_nothing_is_left(
    machines: Machines, cluster: StandIn, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    script = f"trap 'echo asked > {said}; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    name = await machines.make("/bin/sh", "-c", script)
    await _ready(machines, name)
    await machines.run(name, shell("setsid sleep 600 >/dev/null 2>&1 &"))
    await machines.driver.delete(name, grace_s=5)
    assert said.read_text() == "asked\n"
    assert cluster.kubelet.machines == {}
    assert await machines.driver.list_owned() == []
    await until(lambda: cluster.objects == {})
    assert not (tmp_path / "steward" / "logs" / name).exists()


async def test_a_machine_that_does_not_listen_is_killed_after_the_grace(
    machines: Machines, cluster: StandIn
) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    name = await machines.make("/bin/sh", "-c", script)
    await _ready(machines, name)
    began = time.monotonic()
    await machines.driver.delete(name, grace_s=1)
    assert 0.9 < time.monotonic() - began < 15
    assert cluster.kubelet.machines == {}


async def test_a_node_that_is_dead_does_not_keep_a_machine(
    machines: Machines, cluster: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.environments.kubernetes.making._CONFIRM_S", 0.3)
    name = await machines.make()
    cluster.kubelet.is_dead = True
    await machines.driver.delete(name, grace_s=0)
    await until(lambda: cluster.objects == {})


async def test_what_does_not_exist_is_gone_for_every_method(machines: Machines) -> None:
    driver = machines.driver

    async def logs() -> None:
        async for _ in driver.logs("env-none"):
            pass

    for work in (
        driver.start("env-none"),
        driver.wait("env-none"),
        driver.exec("env-none", shell("")),
        logs(),
        driver.log("env-none", "stdout", ["x"]),
        driver.stats("env-none"),
        driver.processes("env-none"),
        driver.signal("env-none", 2, 15),
        driver.pause("env-none"),
        driver.resume("env-none"),
        driver.snapshot("env-none", "x"),
        driver.connect("env-none", 80),
        driver.listen("env-none", 80),
        driver.delete("env-none", grace_s=0),
        driver.delete("../../x", grace_s=0),
        driver.files.stat("env-none", "/"),
    ):
        with pytest.raises(Gone):
            await work


async def test_another_server_finds_what_lives_and_only_its_own(
    machines: Machines, kubeconfig: Path, tmp_path: Path
) -> None:
    name = await machines.make("/bin/sh", "-c", "echo begun; sleep 600")
    running = await machines.driver.exec(name, shell("echo ready; sleep 600"))
    await running.read()
    same = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
    other = KubernetesDriver(tmp_path / "elsewhere", Cluster(kubeconfig))
    try:
        await same.open()
        await other.open()
        assert await same.list_owned() == [Owned(name, is_alive=True)]
        assert await other.list_owned() == []
        with pytest.raises(Gone):
            await other.delete(name, grace_s=0)
        assert (await Machines(same).run(name, shell("echo adopted"))).stdout == "adopted\n"
        # What the first one had started is nobody's any more.
        assert (await asyncio.wait_for(running.wait(), 30)).code == 137
    finally:
        await running.aclose()
        await same.aclose()
        await other.aclose()


async def test_what_a_cluster_cannot_do_is_not_offered_and_refused_by_name(
    machines: Machines,
) -> None:
    told = machines.driver.capabilities()
    assert not told.features & {Feature.PAUSE, Feature.SNAPSHOT, Feature.WARM_POOL}
    assert (told.driver, told.backend) == ("kubernetes", "kubernetes v1.36.1")
    assert told.runtime_classes == ("gvisor",)
    name = await machines.make()
    for work in (
        machines.driver.pause(name),
        machines.driver.resume(name),
        machines.driver.snapshot(name, "x"),
    ):
        with pytest.raises(Unusable) as refusal:
            await work
        assert refusal.value.reason == "NOT_SUPPORTED"


async def test_a_cluster_whose_network_enforces_nothing_is_said_to_be_such(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster.daemon_sets = ["kube-proxy", "kube-flannel-ds"]
    for setting, hold in (("auto", Hold.NONE), ("enforced", Hold.ENFORCED)):
        driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig), network=setting)  # type: ignore[arg-type]
        await driver.open()
        told = driver.capabilities()
        await driver.aclose()
        assert told.limits["network"] is hold
        assert (Feature.NETWORK in told.features) is (hold is Hold.ENFORCED)
        assert ("No network plugin that enforces" in told.promise) is (hold is Hold.NONE)


async def test_an_account_with_too_few_rights_is_told_which_it_lacks(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster.may_not = {"create pods/exec", "watch pods"}
    driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
    await driver.open()
    try:
        assert "may not watch pods, create pods/exec" in driver.capabilities().unusable
        with pytest.raises(Unusable):
            await driver.create("env-1", spec())
    finally:
        await driver.aclose()


async def test_a_cluster_that_comes_late_is_used_once_it_is_there(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster.fail("GET", "/version$", 403, "not yet")
    driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
    await driver.open()
    try:
        assert "not yet" in driver.capabilities().unusable
        assert driver.capabilities().may_come
        await driver.open()
        assert driver.capabilities().unusable == ""
    finally:
        await driver.aclose()


async def test_no_configuration_is_said_and_where_it_stands_in_the_log_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken").write_text("clusters: [")
    for name in ("none", "broken"):
        driver = KubernetesDriver(tmp_path / "steward", Cluster(tmp_path / name))
        with structlog.testing.capture_logs() as logged:
            await driver.open()
        told = driver.capabilities().unusable
        await driver.aclose()
        assert "cannot be read" in told
        assert str(tmp_path) not in told
    assert str(tmp_path / "broken") in str(logged)


async def test_the_room_a_cluster_has_is_what_its_nodes_have_not_promised(
    machines: Machines, cluster: StandIn
) -> None:
    told = await machines.driver.capacity()
    assert (told.cluster_version, told.node_count) == ("v1.36.1", 3)
    assert (told.free_millicores, told.free_memory_bytes >> 30) == (23_910, 48)
    assert told.millicores == 23_910
    cluster.fail("GET", "/nodes$", 403, "nodes is forbidden", count=9)
    fresh = machines.driver
    fresh._room = None
    with pytest.raises(Unavailable, match="nodes is forbidden"):
        await fresh.capacity()


async def test_the_clusters_own_addresses_are_closed(machines: Machines, cluster: StandIn) -> None:
    name = await machines.make(network=NetworkPolicy(allow_internet=True))
    policy = cluster.find("networkpolicies", f"agentbox-{name}", "allow-internet")
    assert policy is not None
    four = policy["spec"]["egress"][0]["to"][0]["ipBlock"]["except"]
    six = policy["spec"]["egress"][0]["to"][1]["ipBlock"]["except"]
    assert {"11.200.0.0/23", "11.200.2.0/24", "11.1.0.1/32", "169.254.0.0/16"} <= set(four)
    assert "fc00::/7" in six


async def test_a_quota_has_room_for_what_a_runtime_class_takes_itself(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make(runtime_class="gvisor")
    quota = cluster.find("resourcequotas", f"agentbox-{name}", "environment")
    pod = cluster.find("pods", f"agentbox-{name}")
    assert quota is not None
    assert pod is not None
    assert quota["spec"]["hard"]["limits.cpu"] == "550m"
    assert quota["spec"]["hard"]["requests.memory"] == str(576 << 20)
    assert pod["spec"]["runtimeClassName"] == "gvisor"


async def test_root_is_let_in_only_where_it_was_asked_for(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make(security=SecurityContext(run_as_user=0))
    namespace = cluster.find("namespaces", "", f"agentbox-{name}")
    assert namespace is not None
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"


async def test_a_cluster_that_goes_away_is_said_to_be_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.environments.kubernetes.cluster.RETRIES", 1)
    async with standing_in(tmp_path) as (_, kubeconfig):
        driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
        await driver.open()
    try:
        with pytest.raises(Unavailable, match="cannot be reached") as refusal:
            await driver.list_owned()
        assert refusal.value.reason == "CLUSTER_UNREACHABLE"
        assert "127.0.0.1" not in str(refusal.value)  # everybody is told
        with pytest.raises(Unavailable, match="cannot be reached"):
            await driver.capacity()
    finally:
        await driver.aclose()


async def _ready(machines: Machines, name: str) -> None:
    """Wait until the main command has said so."""
    following = machines.driver.logs(name, follow=True)
    assert (await asyncio.wait_for(anext(following), 30)).message == "ready"
    await following.aclose()  # type: ignore[attr-defined]
