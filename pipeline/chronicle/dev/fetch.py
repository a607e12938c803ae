"""Downloads and builds of the local stack, kept in a cache that every stack of this user shares.

An entry's name carries a digest of what it is made from, so a changed pom is fetched again and nothing is ever updated in
place. An entry is made in a temporary directory and renamed: one that exists is whole. A lock per registry lets two stacks
fetch at the same time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chronicle.errors import StackError

CHECKOUT = Path(__file__).resolve().parents[3]
LIBCHDB_VERSION = "26.7.3-stable.1"
CONVERTER_SERVICE = "io.apicurio.registry.utils.converter.AvroConverter\n"
CONNECTORS = ("postgres", "mysql", "mariadb")
FETCH_DEADLINE_S = 900.0
_LAYOUT = "1"
"""Of the entries; raise it when the makers below lay out an entry in another way."""

Report = Callable[[str, str], None]
"""Called with an artifact's name and what is being done."""


def cache_directory() -> Path:
    """Where downloads are kept: `CHRONICLE_CACHE`, else `~/.cache/chronicle`."""
    return Path(os.environ.get("CHRONICLE_CACHE") or Path.home() / ".cache" / "chronicle").expanduser().absolute()


def artifact(cache: Path, name: str) -> Path:
    """The directory of an artifact as its sources are now; it exists once `fetch` has returned."""
    return cache / f"{name}-{_digest(name)}"


def _sources(name: str) -> list[Path]:
    if name == "transforms":
        root = CHECKOUT / "connectors" / "transforms"
        return [root / "pom.xml", *sorted(path for path in (root / "src" / "main").rglob("*") if path.is_file())]
    return [CHECKOUT / "deploy" / "local" / name / "pom.xml"]


def _digest(name: str) -> str:
    if name == "libchdb":
        return f"{LIBCHDB_VERSION}-{_architecture()}"
    digest = hashlib.blake2b(_LAYOUT.encode(), digest_size=6)
    for path in _sources(name):
        if not path.exists():
            raise StackError(f"run this from a checkout of Chronicle: {path} is missing")
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _architecture() -> str:
    machine = platform.machine()
    known = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    if platform.system() != "Linux" or machine.lower() not in known:
        raise StackError(f"put a clickhouse binary on PATH: there is no library for {platform.system()} on {machine}")
    return known[machine.lower()]


def fetch(cache: Path, names: Iterable[str], report: Report) -> None:
    """Provide artifacts, downloading or building those that are missing. Any number of callers at once.

    The report is called from two threads.

    Raises:
        StackError: a tool is missing or failed; the end of its output is in the message.
    """
    cache.mkdir(parents=True, exist_ok=True)
    wanted = list(dict.fromkeys(names))
    # two lanes at once, since they wait for different registries; never two Mavens, which would share ~/.m2 unguarded
    lanes = {"npm": [name for name in wanted if name == "libchdb"], "maven": [name for name in wanted if name != "libchdb"]}
    with ThreadPoolExecutor(len(lanes)) as threads:
        for done in [threads.submit(_fetch_lane, cache, lane, lanes[lane], report) for lane in lanes]:
            done.result()


def _fetch_lane(cache: Path, lane: str, names: list[str], report: Report) -> None:
    for name in names:
        target = artifact(cache, name)
        if target.exists():
            continue
        with (cache / f"{lane}.lock").open("w") as lock:
            _take(lock.fileno(), name, report)
            if target.exists():  # another process made it while this one waited
                continue
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as temporary:
                made = Path(temporary, "made")
                made.mkdir()
                _MAKERS[name](made, Path(temporary), report)
                made.rename(target)


def _take(lock: int, name: str, report: Report) -> None:
    end = time.monotonic() + FETCH_DEADLINE_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise StackError(f"end the other process that has been fetching {name} for {FETCH_DEADLINE_S:.0f} s") from None
            report(name, "waiting for another process that fetches it")
            time.sleep(0.5)


def _run(name: str, argv: list[str], directory: Path) -> None:
    program = shutil.which(argv[0])
    if program is None:
        package = {"mvn": "maven"}.get(argv[0], argv[0])
        raise StackError(f"install {package} (Debian, Ubuntu: apt install {package}; make demo does it)")
    try:
        done = subprocess.run(
            [program, *argv[1:]], cwd=directory, capture_output=True, text=True, check=False, timeout=FETCH_DEADLINE_S
        )
    except subprocess.TimeoutExpired:
        raise StackError(f"check the network: fetching {name} took longer than {FETCH_DEADLINE_S:.0f} s") from None
    if done.returncode != 0:
        shown = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise StackError(f"check the network and Maven's or npm's settings: fetching {name} failed\n{shown}")


def _maven(name: str, goal: str, made: Path, temporary: Path, pom: Path) -> None:
    work = temporary / "work"  # Maven leaves files beside the pom
    work.mkdir()
    shutil.copy(pom, work / "pom.xml")
    _run(name, ["mvn", "-B", "-q", goal, f"-DoutputDirectory={made}"], work)


def _runtime(made: Path, temporary: Path, report: Report) -> None:
    report("runtime", "downloading Kafka and Kafka Connect (54 MB)")
    _maven("runtime", "dependency:copy-dependencies", made, temporary, _sources("runtime")[0])


def _plugins(made: Path, temporary: Path, report: Report) -> None:
    report("plugins", "downloading Apicurio Registry and the Debezium connectors (172 MB)")
    archives = temporary / "archives"
    _maven("plugins", "dependency:copy", archives, temporary, _sources("plugins")[0])
    report("plugins", "unpacking")
    _unpack(archives / "apicurio-registry-app-all.tar.gz", made / "registry")
    runner = next((made / "registry").glob("apicurio-registry-app-*-runner.jar"))
    runner.rename(runner.with_name("registry.jar"))
    for connector in CONNECTORS:
        _unpack(archives / f"debezium-connector-{connector}-plugin.tar.gz", made / "connect")


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # the program, since Python learnt only in 3.11.4 to unpack without trusting the archive, and Debian 12 has 3.11.2
    _run("plugins", ["tar", "-xzf", str(archive), "--no-same-owner"], target)


def _converter(made: Path, temporary: Path, report: Report) -> None:
    report("converter", "downloading Apicurio's Avro converter (17 MB)")
    directory = made / "connect" / "apicurio-converter"
    _maven("converter", "dependency:copy-dependencies", directory, temporary, _sources("converter")[0])
    # the converter brings no service file, without which Connect's quick plugin discovery does not see it
    jar = directory / "chronicle-converter-service.jar"
    _write_jar(jar, {"META-INF/services/org.apache.kafka.connect.storage.Converter": CONVERTER_SERVICE})


def _write_jar(jar: Path, files: dict[str, str]) -> None:
    import zipfile

    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\n\r\n")
        for name, text in files.items():
            archive.writestr(name, text)


def _transforms(made: Path, temporary: Path, report: Report) -> None:
    report("transforms", "compiling the Connect transforms")
    work = temporary / "work"
    root = CHECKOUT / "connectors" / "transforms"
    (work / "src").mkdir(parents=True)
    shutil.copy(root / "pom.xml", work / "pom.xml")
    shutil.copytree(root / "src" / "main", work / "src" / "main")
    _run("transforms", ["mvn", "-B", "-q", "-Dmaven.test.skip=true", "package"], work)
    directory = made / "connect" / "chronicle-transforms"
    directory.mkdir(parents=True)
    shutil.copy(work / "target" / "chronicle-transforms.jar", directory)


def _libchdb(made: Path, temporary: Path, report: Report) -> None:
    report("libchdb", "downloading ClickHouse (178 MB)")
    package = f"@chdb/lib-linux-{_architecture()}-gnu"
    work = temporary / "work"
    work.mkdir()
    _run("libchdb", ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(work), f"{package}@{LIBCHDB_VERSION}"], work)
    shutil.move(work / "node_modules" / package / "libchdb.so", made / "libchdb.so")


_MAKERS: dict[str, Callable[[Path, Path, Report], None]] = {
    "runtime": _runtime,
    "plugins": _plugins,
    "converter": _converter,
    "transforms": _transforms,
    "libchdb": _libchdb,
}
