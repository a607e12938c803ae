"""ClickHouse of the local stack: a `clickhouse` binary when there is one on PATH, else the server inside npm's libchdb.so."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import ClassVar

import httpx

from chronicle.dev.fetch import artifact
from chronicle.dev.parts import NotHealthyYet, Part, base_environment, write_if_changed
from chronicle.dev.processes import Command

MEMORY_BYTES_MAX = 1_200_000_000

_CONFIG = """<clickhouse>
  <logger><level>warning</level><console>1</console></logger>
  <path>{data}/</path>
  <tmp_path>{data}/tmp/</tmp_path>
  <user_files_path>{data}/user_files/</user_files_path>
  <http_port>{port}</http_port>
  <listen_host>127.0.0.1</listen_host>
  <users_config>{users}</users_config>
  <timezone>UTC</timezone>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <!-- defaults are sized for a server: the mark cache alone may take 5 GiB -->
  <mark_cache_size>67108864</mark_cache_size>
  <index_mark_cache_size>16777216</index_mark_cache_size>
  <primary_index_cache_size>67108864</primary_index_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <mmap_cache_size>100</mmap_cache_size>
  <compiled_expression_cache_size>33554432</compiled_expression_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_schedule_pool_size>8</background_schedule_pool_size>
  <background_message_broker_schedule_pool_size>2</background_message_broker_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <tables_loader_foreground_pool_size>2</tables_loader_foreground_pool_size>
  <tables_loader_background_pool_size>2</tables_loader_background_pool_size>
  <merge_tree>
    <!-- their defaults (20, 25, 8) exceed a pool of four slots, which is refused -->
    <number_of_free_entries_in_pool_to_execute_mutation>2</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>2</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>2</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
  </merge_tree>
  <query_log>
    <database>system</database><table>query_log</table>
    <ttl>event_date + INTERVAL 3 DAY DELETE</ttl>
    <flush_interval_milliseconds>1000</flush_interval_milliseconds>
  </query_log>
</clickhouse>
"""

_USERS = """<clickhouse>
  <profiles>
    <default><max_memory_usage>900000000</max_memory_usage><async_insert>0</async_insert></default>
    <reader>
      <readonly>1</readonly>
      <max_memory_usage>400000000</max_memory_usage>
      <max_execution_time>60</max_execution_time>
      <max_concurrent_queries_for_user>8</max_concurrent_queries_for_user>
    </reader>
  </profiles>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile><quota>default</quota><access_management>1</access_management>
    </default>
    <chronicle_reader>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>reader</profile><quota>default</quota>
    </chronicle_reader>
  </users>
  <quotas><default/></quotas>
</clickhouse>
"""


class ClickHouse(Part):
    """One server over HTTP; users `default` (all rights) and `chronicle_reader` (reads, within limits), no passwords."""

    name: ClassVar[str] = "clickhouse"

    @property
    def binary(self) -> str | None:
        """A ClickHouse of the user's own, which is preferred."""
        return shutil.which("clickhouse")

    def artifacts(self) -> tuple[str, ...]:
        """The library, unless there is a binary."""
        return () if self.binary else ("libchdb",)

    def prepare(self) -> None:
        """Write configuration and users."""
        data = self.home / "data"
        data.mkdir(parents=True, exist_ok=True)
        if self.binary is None:
            # the library forgets its tables of logs, and cannot make them where their files are: there would be no query_log
            shutil.rmtree(data / "data" / "system", ignore_errors=True)
        write_if_changed(self.home / "users.xml", _USERS)
        write_if_changed(
            self.home / "config.xml",
            _CONFIG.format(data=data, port=self.port, users=self.home / "users.xml", memory=MEMORY_BYTES_MAX),
        )

    def command(self) -> Command:
        """The binary's server, or the library's."""
        config = f"--config-file={self.home / 'config.xml'}"
        if self.binary is not None:
            argv: tuple[str, ...] = (self.binary, "server", config)
        else:
            library = artifact(self.cache, "libchdb") / "libchdb.so"
            program = Path(__file__).with_name("libchdb_server.py")
            argv = (
                sys.executable,
                "-I",
                str(program),
                str(library),
                config,
                "--path",
                str(self.home / "data"),
                f"--http_port={self.port}",
                "--listen_host=127.0.0.1",
            )
        return Command(argv=argv, environment=base_environment())

    def check(self) -> None:
        """It answers a query, not only a ping."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/", params={"query": "SELECT 1"}, timeout=5.0, trust_env=False)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise NotHealthyYet(f"ClickHouse to answer a query ({type(error).__name__})") from None
