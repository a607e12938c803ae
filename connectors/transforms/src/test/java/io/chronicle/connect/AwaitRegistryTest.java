package io.chronicle.connect;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.source.SourceRecord;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** A new schema waits for the registry, a known one does not ask, and no record is changed. */
class AwaitRegistryTest {

  private static final long DEADLINE_S = 30;

  private final AtomicInteger asked = new AtomicInteger();
  private final CompletableFuture<Void> askedOnce = new CompletableFuture<>();
  private volatile int status = 200;
  private int port;
  private HttpServer server;

  @BeforeEach
  void choosePort() throws IOException {
    try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
      port = socket.getLocalPort();
    }
  }

  @AfterEach
  void stop() {
    if (server != null) {
      server.stop(0);
    }
  }

  private void serve() throws IOException {
    server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
    server.createContext(
        "/",
        exchange -> {
          asked.incrementAndGet();
          askedOnce.complete(null);
          exchange.sendResponseHeaders(status, -1);
          exchange.close();
        });
    server.start();
  }

  private AwaitRegistry<SourceRecord> transform() {
    AwaitRegistry<SourceRecord> transform = new AwaitRegistry<>();
    transform.configure(Map.of("url", "http://127.0.0.1:" + port + "/system/info"));
    return transform;
  }

  private static Schema schema(String column) {
    return SchemaBuilder.struct().name("row").field(column, Schema.INT32_SCHEMA).build();
  }

  private static SourceRecord record(Schema schema) {
    return new SourceRecord(Map.of(), Map.of(), "topic", 0, null, null, schema, new Struct(schema));
  }

  private static Future<SourceRecord> applied(AwaitRegistry<SourceRecord> transform, SourceRecord record) {
    return CompletableFuture.supplyAsync(() -> transform.apply(record));
  }

  @Test
  void aSchemaIsAskedForOnce() throws IOException {
    serve();
    AwaitRegistry<SourceRecord> transform = transform();
    Schema first = schema("a");
    SourceRecord record = record(first);
    assertSame(record, transform.apply(record));
    transform.apply(record(first));
    transform.apply(record(schema("a"))); // built anew, the same
    assertEquals(1, asked.get());
    transform.apply(record(schema("b")));
    assertEquals(2, asked.get());
  }

  @Test
  void aKnownSchemaPassesWhileTheRegistryIsAway() throws IOException {
    serve();
    AwaitRegistry<SourceRecord> transform = transform();
    SourceRecord record = record(schema("a"));
    transform.apply(record);
    server.stop(0);
    assertSame(record, transform.apply(record));
  }

  @Test
  void aNewSchemaWaitsUntilTheRegistryAnswers() throws Exception {
    SourceRecord record = record(schema("a"));
    Future<SourceRecord> waiting = applied(transform(), record);
    assertThrows(java.util.concurrent.TimeoutException.class, () -> waiting.get(1500, TimeUnit.MILLISECONDS));
    serve();
    assertSame(record, waiting.get(DEADLINE_S, TimeUnit.SECONDS));
  }

  @Test
  void aRegistryThatIsNotReadyIsAway() throws Exception {
    status = 503;
    serve();
    Future<SourceRecord> waiting = applied(transform(), record(schema("a")));
    askedOnce.get(DEADLINE_S, TimeUnit.SECONDS);
    assertFalse(waiting.isDone());
    status = 401; // it asks who we are: it is there
    waiting.get(DEADLINE_S, TimeUnit.SECONDS);
  }

  @Test
  void withoutARegistryNothingIsWaitedFor() {
    AwaitRegistry<SourceRecord> transform = new AwaitRegistry<>();
    transform.configure(Map.of("url", "none"));
    SourceRecord record = record(schema("a"));
    assertSame(record, transform.apply(record));
  }

  @Test
  void aTombstonePasses() throws IOException {
    serve();
    SourceRecord tombstone = new SourceRecord(Map.of(), Map.of(), "topic", 0, Schema.STRING_SCHEMA, "key", null, null);
    assertSame(tombstone, transform().apply(tombstone));
  }

  @Test
  void anEndOfTheWorkerEndsTheWait() throws Exception {
    ExecutorService threads = Executors.newSingleThreadExecutor();
    AwaitRegistry<SourceRecord> transform = transform();
    Future<SourceRecord> waiting = threads.submit(() -> transform.apply(record(schema("a"))));
    threads.shutdownNow();
    Throwable failure = assertThrows(Exception.class, () -> waiting.get(DEADLINE_S, TimeUnit.SECONDS)).getCause();
    assertSame(ConnectException.class, failure.getClass());
    threads.awaitTermination(DEADLINE_S, TimeUnit.SECONDS);
  }
}
