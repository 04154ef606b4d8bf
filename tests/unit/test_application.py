"""What is wrong with the variables of the role app."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.kallithea.cluster.plugins.filter.application import application_problems, pack_cache_problems

GOOD: dict[str, Any] = {
    "name": "app1",
    "pools": {"ui": {"processes": 3, "port": 8081}},
    "static_port": 8080,
    "purge_deleted_after": "",
    "trusted_proxies": ["192.0.2.1"],
    "direct_clients": ["2001:db8::/32"],
    "metrics_bind": "127.0.0.1:8406",
    "metrics_networks": [],
    "index_seconds": 1800,
    "cleanup_seconds": 86400,
    "session_days": 30,
    "beaker_keep_days": 30,
    "maintenance_seconds": 86400,
    "maintenance_run_seconds": 7200,
    "maintenance_repository_seconds": 900,
    "freshen_seconds": 900,
    "write_wait_seconds": 10,
    "pull_log_days": 90,
    "verified_password_seconds": 30,
    "pull_bundle_bytes": 10 << 20,
    "pack_cache_bytes": 2 << 30,
    "pack_cache_seconds": 3600,
}


def test_the_defaults_are_fine() -> None:
    assert application_problems(GOOD) == []


@pytest.mark.parametrize("seconds", [0, 300])
def test_the_bounds_are_fine(seconds: int) -> None:
    assert application_problems({**GOOD, "verified_password_seconds": seconds, "pull_log_days": 1}) == []


@pytest.mark.parametrize("age", ["30d", "12h"])
def test_an_age_in_days_or_hours_is_fine(age: str) -> None:
    assert application_problems({**GOOD, "purge_deleted_after": age}) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"static_port": 8081}, "kallithea_app_static_port 8081 is the port of a pool of host app1; give static files a port of their own."),
        (
            {"purge_deleted_after": "0d"},
            "kallithea_app_purge_deleted_after is '0d'; give days or hours such as 30d, or leave it empty to keep deleted repositories.",
        ),
        (
            {"purge_deleted_after": 30},
            "kallithea_app_purge_deleted_after is '30'; give days or hours such as 30d, or leave it empty to keep deleted repositories.",
        ),
        ({"trusted_proxies": []}, "kallithea_app_trusted_proxies is empty, so no balancer could reach the pools; name the balancers' addresses."),
        ({"static_port": "8081"}, "kallithea_app_static_port 8081 is the port of a pool of host app1; give static files a port of their own."),
        ({"metrics_bind": "8406"}, "kallithea_app_metrics_bind is '8406': give an address and a port, such as 127.0.0.1:8405 or *:8405."),
        ({"metrics_networks": ["x"]}, "kallithea_app_metrics_networks holds 'x', which is neither an address nor a network such as 192.0.2.0/24."),
        ({"direct_clients": ["x y"]}, "kallithea_app_direct_clients holds 'x y', which is neither an address nor a network such as 192.0.2.0/24."),
        ({"index_seconds": "soon"}, "kallithea_app_index_seconds is soon; give at least 60."),
        ({"index_seconds": 5}, "kallithea_app_index_seconds is 5; give at least 60."),
        ({"maintenance_run_seconds": 0}, "kallithea_app_maintenance_run_seconds is 0; give at least 1."),
        ({"write_wait_seconds": "no"}, "kallithea_app_write_wait_seconds is no; give at least 0."),
        ({"pull_log_days": 0}, "kallithea_app_pull_log_days is 0; give at least 1."),
        ({"verified_password_seconds": "no"}, "kallithea_app_verified_password_seconds is no; give at least 0."),
        ({"verified_password_seconds": 3600}, "kallithea_app_verified_password_seconds is 3600; give at most 300."),
        ({"session_days": 0}, "kallithea_app_session_days is 0; give at least 1."),
        ({"pull_bundle_bytes": "10M"}, "kallithea_app_pull_bundle_bytes is 10M; give at least 0."),
        ({"pack_cache_bytes": -1}, "kallithea_app_pack_cache_bytes is -1; give at least 0."),
        ({"pack_cache_seconds": 0}, "kallithea_app_pack_cache_seconds is 0; give at least 1."),
        ({"pack_cache_seconds": 10**22}, f"kallithea_app_pack_cache_seconds is {10**22}; give at most 31536000."),
        ({"pull_log_days": 10**14}, f"kallithea_app_pull_log_days is {10**14}; give at most 36500."),
        ({"pull_bundle_bytes": 10**23}, f"kallithea_app_pull_bundle_bytes is {10**23}; give at most {1 << 60}."),
        (
            {"purge_deleted_after": "99999999999999d"},
            "kallithea_app_purge_deleted_after is '99999999999999d'; give days or hours such as 30d, or leave it empty to keep deleted repositories.",
        ),
    ],
)
def test_each_mistake_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    assert application_problems({**GOOD, **change}) == [sentence]


PACKS = "/var/cache/kallithea/packs"
PATH = f"kallithea_app_pack_cache_path {PACKS}"


def cache_problems(path: str = PACKS, size: int = 2 << 30, mounts: dict[str, tuple[str, int]] | None = None) -> list[str]:
    """Return what is wrong with a cache of packs on a host that has these mounts beside its own disk and the storage."""
    there = {"/": ("ext4", 10 << 30), "/srv/kallithea": ("nfs4", 0), **(mounts or {})}
    state = {"disks": [{"path": path, "fstype": fstype, "bytes": number} for path, (fstype, number) in there.items()]}
    found: list[str] = pack_cache_problems(path, size, "/srv/kallithea", "app1", state)
    return found


@pytest.mark.parametrize("mounts", [{}, {"/var/cache": ("ext4", 4 << 30)}, {"/var/cach": ("nfs4", 0)}, {"/var/cache": ("xfs", 0)}])
def test_a_cache_on_a_disk_of_the_hosts_own_is_fine(mounts: dict[str, tuple[str, int]]) -> None:
    assert cache_problems(mounts=mounts) == []


def test_a_cache_that_is_off_may_lie_anywhere() -> None:
    assert cache_problems("/srv/kallithea", 0) == []


@pytest.mark.parametrize("path", ["packs", "/var/a b", "/var/$(x)", "/", "/var/../srv/kallithea/packs"])
def test_a_cache_needs_a_plain_path(path: str) -> None:
    assert cache_problems(path) == [
        f"kallithea_app_pack_cache_path {path} is not an absolute path of letters, digits and ._-; give one such as /var/cache/kallithea/packs."
    ]


@pytest.mark.parametrize("path", ["/etc", "/etc/packs", "/usr/local/packs", "/var", "/var/cache", "/var/lib/kallithea", "/opt", "/srv", "/mnt", "/dev/shm"])
def test_a_cache_has_a_folder_for_nothing_else(path: str) -> None:
    assert cache_problems(path) == [
        f"kallithea_app_pack_cache_path {path} is the system's or holds what others keep, and would become the application's; "
        "give a folder for nothing else, such as /var/cache/kallithea/packs."
    ]


@pytest.mark.parametrize("path", ["/packs", "/mnt/packs", "/dev/shm/packs", "/var/lib/kallithea/packs", "/opt/kallithea/packs", "/etcetera"])
def test_a_cache_on_a_disk_of_its_own_is_fine(path: str) -> None:
    assert cache_problems(path) == []


@pytest.mark.parametrize("path", ["/srv/kallithea", "/srv/kallithea/data/packs"])
def test_a_cache_on_the_shared_storage(path: str) -> None:
    assert cache_problems(path) == [
        f"kallithea_app_pack_cache_path {path} lies on the shared storage, where reading it costs more than it saves; "
        "give a folder on a disk of the host's own."
    ]


@pytest.mark.parametrize("folder", ["/tmp", "/var/tmp", "/home", "/root", "/run/user"])
def test_a_cache_that_the_unit_would_not_see(folder: str) -> None:
    for path in (folder, f"{folder}/packs"):
        assert cache_problems(path) == [
            f"kallithea_app_pack_cache_path {path} lies in {folder}, which the application's unit does not see; "
            "give a folder elsewhere on a disk of the host's own."
        ]
    assert cache_problems(f"{folder}2/packs") == cache_problems(f"/srv{folder}/packs") == []


@pytest.mark.parametrize("fstype", ["nfs4", "cifs", "ceph", "fuse.glusterfs", "9p"])
def test_a_cache_on_a_network_file_system(fstype: str) -> None:
    assert cache_problems(mounts={"/var/cache": (fstype, 0)}) == [
        f"{PATH} of host app1 lies on {fstype}, a network file system; give a folder on a disk of the host's own."
    ]


@pytest.mark.parametrize(("size", "disk"), [(10 << 30, 10 << 30), (2 << 30, 1 << 30), (96, 100)])
def test_a_cache_larger_than_its_disk(size: int, disk: int) -> None:
    assert cache_problems(size=size, mounts={"/var/cache": ("ext4", disk)}) == [
        f"kallithea_app_pack_cache_bytes is {size}, but the disk of {PACKS} on host app1 has {disk} bytes, of which 5% stay free; give less, or 0 for no cache."
    ]
